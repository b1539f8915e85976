"""The list record: comes back equal, has the documented bytes, and is an absent list when anything is wrong."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.derivation.list_record import pack, unpack
from leadre.derivation.record_layout import MOST_ADS
from leadre.derivation.user_side import derive
from leadre.errors import InvalidInput
from tests.derivation.worlds import all_plain, derived, facts, plain

ABSENT = plain(unpack([None]), 0)
PER_AD = ("ad_ids", "log_probabilities", "codes", "advertiser_ids", "embeddings", "ecpms")
TWO = {
    "counts": [2],
    "ad_ids": [11, 2**63 - 1],
    "log_probabilities": [-1.0, -2.5],
    "codes": [[1, 2, 0], [1, 65_534, 7]],
    "first_categories": [2, 2],
    "second_categories": [1, 0],
    "category_names": ("", "cars", "toys"),
    "advertiser_ids": [7, 0],
    "embeddings": np.array([[1.0, -2.0], [0.0, 0.0]], np.float32),
    "ecpms": [10.0, 20.0],
    "generated_at_s": [1000.25],
    "behavior_at_s": [990.5],
    "release": "r1",
    "index_version": "v☀",
}


@given(facts())
def test_lists_come_back_equal(of_lists: dict[str, Any]) -> None:
    lists = derived(of_lists)
    records = pack(lists)
    assert all_plain(unpack(records)) == all_plain(lists)
    assert [pack(unpack([record])) for record in records] == [[record] for record in records]


@given(facts(), facts())
def test_records_of_any_shapes_are_read_together_as_alone(one: dict[str, Any], other: dict[str, Any]) -> None:
    records: list[Any] = [*pack(derived(one)), None, *pack(derived(other))]
    together = unpack(records)
    assert all_plain(together) == [plain(unpack([record]), 0) for record in records]
    assert all_plain(unpack(pack(together))) == [
        found if found["present"] else {**ABSENT, "present": True, "generated_at_s": 0.0}
        for found in all_plain(together)
    ]


def test_the_bytes_are_the_documented_ones() -> None:
    lists = derive(**TWO)
    shares = lists.shares.tolist()
    assert sum(shares) == pytest.approx(2**32, abs=2)
    body = struct.pack("<BBHHHHHI", 1, 3, 2, 2, 3, 2, 4, 8)
    body += struct.pack("<dddd", 1000.25, 990.5, lists.entropy[0], lists.expected_ecpm[0])
    body += struct.pack("<2f", *lists.mean_embedding[0])
    body += struct.pack("<2q2q2I2f", 11, 2**63 - 1, 7, 0, *shares, -1.0, -2.5)
    body += struct.pack("<6H", 1, 2, 0, 1, 65_534, 7)
    body += bytes([2, 2, 1, 0])  # first categories, then second ones, by the names below
    body += struct.pack("<4b", 64, -127, 0, 0)
    body += struct.pack("<3H", 0, 4, 4) + "r1v☀carstoys".encode()
    assert pack(lists) == [body + struct.pack("<I", zlib.crc32(body))]


def test_twenty_ads_take_about_a_kilobyte() -> None:
    rng = np.random.default_rng(1)
    lists = derive(
        counts=[20],
        ad_ids=rng.integers(0, 2**62, 20),
        log_probabilities=-rng.random(20),
        codes=rng.integers(0, 1024, (20, 5)),
        first_categories=np.arange(20) % 4,
        second_categories=np.arange(20) % 7 + 4,
        category_names=[f"category {n}" for n in range(11)],
        advertiser_ids=rng.integers(0, 2**62, 20),
        embeddings=rng.standard_normal((20, 8)),
        ecpms=np.ones(20),
        generated_at_s=1.7e9,
        behavior_at_s=np.nan,
        release="2026-03-01-a",
        index_version="2026-02-01",
    )
    assert len(pack(lists)[0]) <= 1150


@given(facts(lists=1), st.data())
def test_an_altered_or_cut_record_is_an_absent_list(of_lists: dict[str, Any], data: st.DataObject) -> None:
    (record,) = pack(derived(of_lists))
    altered = bytearray(record)
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    cut = record[: data.draw(st.integers(0, len(record) - 1))]
    for broken in (bytes(altered), cut, record + b"\0", record[1:]):
        if broken != record:  # two changes of one byte may undo each other
            assert plain(unpack([broken]), 0) == ABSENT


@given(facts(lists=1), st.data())
def test_nonsense_with_a_right_checksum_is_no_error(of_lists: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(pack(derived(of_lists))[0][:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, min(len(body), 64) - 1))] = data.draw(st.integers(0, 255))
    lists = unpack([bytes(body) + struct.pack("<I", zlib.crc32(body))])
    assert len(lists) == 1


@pytest.mark.parametrize("junk", [None, float("nan"), b"", b"\1", "text", 5, [1, 2], np.bytes_(b"abc"), b"\1" * 60])
def test_what_is_no_record_is_an_absent_list(junk: Any) -> None:
    assert plain(unpack([junk]), 0) == ABSENT
    assert not unpack([junk]).present.any()


def test_a_record_that_names_categories_it_has_not_is_an_absent_list() -> None:
    record = pack(derive(**TWO))[0]
    body = bytearray(record[:-4])
    body[48 + 8 + 2 * 24 + 12] = 3
    assert plain(unpack([bytes(body) + struct.pack("<I", zlib.crc32(body))]), 0) == ABSENT


def test_lists_with_more_than_256_names_number_them_in_two_bytes() -> None:
    lists = derive(
        **{
            **{name: np.repeat(value, 200, axis=0) for name, value in TWO.items() if name in PER_AD},
            "counts": [400],
            "first_categories": np.arange(400),
            "second_categories": np.arange(400)[::-1],
            "category_names": [f"name {n}" for n in range(400)],
            "generated_at_s": 1.0,
            "behavior_at_s": 1.0,
            "release": "",
            "index_version": "v",
        }
    )
    assert all_plain(unpack(pack(lists))) == all_plain(lists)


def test_what_a_record_cannot_hold_is_refused() -> None:
    lists = derive(**TWO)
    with pytest.raises(InvalidInput, match="65535"):
        pack(replace(lists, releases=("x" * 70_000,)))
    many = MOST_ADS + 1
    with pytest.raises(InvalidInput, match="32768 ads"):
        pack(replace(lists, offsets=np.array([0, many])))
