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
from leadre.derivation.record_layout import MOST_ADS, fence_checks
from leadre.derivation.user_side import derive
from leadre.errors import InvalidInput
from tests.derivation.first_format import first_format
from tests.derivation.worlds import all_plain, derived, facts, plain

ABSENT = plain(unpack([None]), 0)
PER_AD = ("ad_ids", "log_probabilities", "codes", "advertiser_ids", "embeddings", "ecpms")
PER_AD += ("first_categories", "second_categories")
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
    "release_epochs": [258],
    "behavior_sequences": [7],
    "source": "covisitation",
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
    fence = struct.pack(">II", 258, 7)
    body = struct.pack("<BB", 2, 1) + fence
    body += struct.pack("<H", 0x4C45 + sum(place * byte for place, byte in enumerate(fence, 1)))
    body += struct.pack("<BBHHHHBBHH", 3, 2, 2, 2, 3, 2, 8, 1, 2, 4)
    body += struct.pack("<dddd", 1000.25, 990.5, lists.entropy[0], lists.expected_ecpm[0])
    body += struct.pack("<2f", *lists.mean_embedding[0])
    body += struct.pack("<2q", 11, 2**63 - 1) + bytes([1, 0])  # ads, and their advertisers by the table below
    body += struct.pack("<2I2f", *shares, -1.0, -2.5)
    body += struct.pack("<4H", 1, 2, 1, 65_534) + bytes([0, 7])  # codes of two bytes, then of one
    body += bytes([2, 2, 1, 0])  # first categories, then second ones, by the names below
    body += struct.pack("<4b", 64, -127, 0, 0)
    body += bytes([0, 7]) + struct.pack("<3H", 0, 4, 4) + "r1v☀carstoys".encode()
    assert pack(lists) == [body + struct.pack("<I", zlib.crc32(body))]


@pytest.mark.parametrize(("greatest", "bytes_each"), [(255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32, 8)])
def test_numbers_take_no_more_bytes_than_the_greatest_needs(greatest: int, bytes_each: int) -> None:
    names = ("ad_ids", "advertiser_ids")
    (least,), (record,) = (pack(derive(**TWO | {name: [number, 0] for name in names})) for number in (255, greatest))
    assert len(record) - len(least) == 4 * (bytes_each - 1)  # two ads, two advertisers
    assert plain(unpack([record]), 0)["ad_ids"] == [greatest, 0]


def test_advertisers_of_many_ads_are_held_once() -> None:
    one, many = (pack(derive(**_repeated(300) | {"advertiser_ids": np.arange(300) % n + 2**40}))[0] for n in (1, 257))
    assert len(many) - len(one) == 256 * 8 + 300  # beyond 256 their numbers have two bytes
    assert len(set(plain(unpack([many]), 0)["advertiser_ids"])) == 257


@given(facts(), facts())
def test_records_of_the_first_format_are_read_beside_others(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = replace(derived(old), release_epochs=np.zeros(len(old["counts"]), np.int64))
    before = replace(before, behavior_sequences=before.release_epochs, sources=("llm",) * len(before))
    records = [first_format(before, u) for u in range(len(before))]
    assert all_plain(unpack([*records, *pack(derived(new))])) == [*all_plain(before), *all_plain(derived(new))]
    assert all_plain(unpack(pack(unpack(records)))) == all_plain(before)


def test_a_record_of_the_first_format_is_read_as_documented_then() -> None:
    body = struct.pack("<BBHHHHHI", 1, 3, 1, 2, 2, 2, 1, 4) + struct.pack("<dddd", 1000.25, 990.5, 0.5, 12.0)
    body += struct.pack("<f2q2q2I2f", 0.25, 11, 12, 7, 0, 2**31, 2**31, -1.0, -2.5)
    body += struct.pack("<6H", 1, 2, 0, 1, 65_534, 7) + bytes([1, 1, 0, 0]) + struct.pack("<2b", 64, -127)
    body += struct.pack("<2H", 0, 4) + b"r1vcars"
    found = plain(unpack([body + struct.pack("<I", zlib.crc32(body))]), 0)
    assert found == {
        "present": True,
        "ad_ids": [11, 12],
        "log_probabilities": [-1.0, -2.5],
        "shares": [2**31, 2**31],
        "codes": [[1, 2, 0], [1, 65_534, 7]],
        "directions": [[64], [-127]],
        "first_categories": ["cars", "cars"],
        "second_categories": ["", ""],
        "advertiser_ids": [7, 0],
        "generated_at_s": 1000.25,
        "behavior_at_s": 990.5,
        "entropy": 0.5,
        "expected_ecpm": 12.0,
        "mean_embedding": [0.25],
        "release": "r1",
        "index_version": "v",
        "release_epoch": 0,
        "behavior_sequence": 0,
        "source": "llm",
    }


def test_twenty_ads_take_less_than_a_kilobyte() -> None:
    rng = np.random.default_rng(1)
    lists = derive(
        counts=[20],
        ad_ids=rng.integers(0, 2**62, 20),
        log_probabilities=-rng.random(20),
        codes=rng.integers(0, [256, 256, 256, 256, 3], (20, 5)),
        first_categories=np.arange(20) % 4,
        second_categories=np.arange(20) % 7 + 4,
        category_names=[f"category {n}" for n in range(11)],
        advertiser_ids=rng.integers(0, 2**62, 10).repeat(2),
        embeddings=rng.standard_normal((20, 8)),
        ecpms=np.ones(20),
        generated_at_s=1.7e9,
        behavior_at_s=np.nan,
        release="2026-03-01-a",
        index_version="2026-02-01",
    )
    assert len(pack(lists)[0]) <= 980


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


def test_a_record_that_names_what_it_has_not_is_an_absent_list() -> None:
    record = pack(derive(**TWO))[0]
    for at, one_too_many in ((112, 3), (84, 2)):  # a first category, an advertiser
        body = bytearray(record[:-4])
        body[at] = one_too_many
        assert plain(unpack([bytes(body) + struct.pack("<I", zlib.crc32(body))]), 0) == ABSENT


def test_lists_with_more_than_256_names_number_them_in_two_bytes() -> None:
    numbers = {"first_categories": np.arange(400), "second_categories": np.arange(400)[::-1]}
    lists = derive(**_repeated(400) | numbers | {"category_names": [f"name {n}" for n in range(400)]})
    assert all_plain(unpack(pack(lists))) == all_plain(lists)


def test_what_a_record_cannot_hold_is_refused() -> None:
    lists = derive(**TWO)
    with pytest.raises(InvalidInput, match="65535"):
        pack(replace(lists, releases=("x" * 70_000,)))
    with pytest.raises(InvalidInput, match="release_epochs from 4294967296"):
        pack(replace(lists, release_epochs=np.array([2**32])))
    with pytest.raises(InvalidInput, match="behavior_sequences from -1"):
        pack(replace(lists, behavior_sequences=np.array([-1])))
    many = MOST_ADS + 1
    with pytest.raises(InvalidInput, match="32768 ads"):
        pack(replace(lists, offsets=np.array([0, many])))


@given(st.integers(0, 7), st.integers(1, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_fence_with_an_altered_byte_has_another_check(place: int, change: int, epoch: int, sequence: int) -> None:
    altered = bytearray(struct.pack(">II", epoch, sequence))
    altered[place] ^= change
    (one,), (other,) = (
        fence_checks(np.array([fence[0]]), np.array([fence[1]]))
        for fence in ((epoch, sequence), struct.unpack(">II", altered))
    )
    assert one != other


def _repeated(ads: int) -> dict[str, Any]:
    """Return facts of one list of so many ads, those of `TWO` in turn."""
    repeated = {name: np.resize(value, (ads, *np.shape(value)[1:])) for name, value in TWO.items() if name in PER_AD}
    return TWO | repeated | {"counts": [ads]}
