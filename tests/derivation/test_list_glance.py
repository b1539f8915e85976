"""A glance at a record shows what the arrays hold."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leadre.derivation.list_glance import Glance, glance
from leadre.derivation.list_record import pack, unpack
from leadre.derivation.lists import Lists
from tests.derivation.first_format import first_format
from tests.derivation.worlds import derived, facts


def expected(lists: Lists, u: int) -> Glance:
    ads = slice(int(lists.offsets[u]), int(lists.offsets[u + 1]))
    return Glance(
        lists.releases[u],
        lists.index_versions[u],
        float(lists.generated_at_s[u]),
        lists.sources[u],
        tuple(lists.ad_ids[ads].tolist()),
        [tuple(codes) for codes in lists.codes[ads, : int(lists.levels[u])].tolist()],
        tuple(lists.log_probabilities[ads].tolist()),
    )


@given(facts())
def test_a_glance_at_each_record_finds_what_all_together_hold(of_lists: dict[str, Any]) -> None:
    lists = derived(of_lists)
    for u, record in enumerate(pack(lists)):
        assert glance(record) == (expected(lists, u) if lists.present[u] else None)
        if lists.present[u]:
            assert glance(first_format(lists, u)) == expected(unpack([first_format(lists, u)]), 0)


@given(facts(), st.data())
def test_what_was_cut_or_altered_is_absent(of_lists: dict[str, Any], data: st.DataObject) -> None:
    for record in filter(None, pack(derived(of_lists))):
        place = data.draw(st.integers(0, len(record) - 1))
        other = bytes([record[place] ^ data.draw(st.integers(1, 255))])
        altered = record[:place] + other + record[place + 1 :]
        assert glance(record[:place]) is None
        assert glance(altered) is None
        # With a checksum that is right again, it is read or absent, but nothing breaks.
        body = altered[:-4]
        found = glance(body + zlib.crc32(body).to_bytes(4, "little"))
        assert found is None or np.isfinite(found.generated_at_s)


def test_what_is_no_record_is_absent() -> None:
    assert [glance(odd) for odd in (None, b"", b"\x00" * 200, "text", float("nan"))] == [None] * 5
