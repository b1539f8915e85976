"""Ids: stable, 63 bits wide, spread out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.identity import MAX_ID, id_of, ids_of, outward, stable_id
from leadre.errors import InvalidInput


@pytest.mark.parametrize(
    ("source_id", "expected"),
    [
        ("", 8238016292129134938),
        ("B00005N7P0", 44019851868283391),
        ("SKU-1", 5566019728518143210),
        ("广告", 1527994229887053879),
    ],
)
def test_ids_are_the_same_on_every_machine(source_id: str, expected: int) -> None:
    assert stable_id(source_id) == expected


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_ids_fit_a_signed_64_bit_column(source_id: str) -> None:
    assert 0 <= stable_id(source_id) <= MAX_ID == 2**63 - 1


def test_many_names_give_as_many_ids() -> None:
    count = 20_011
    ids = {stable_id(f"ad-{number}") for number in range(count)}
    assert len(ids) == count
    assert 0.49 < sum(each > MAX_ID // 2 for each in ids) / count < 0.51


@pytest.mark.parametrize("number", [0, 7, 7571317017933974737, MAX_ID])
def test_a_whole_number_is_its_own_id_also_when_it_is_written_as_text(number: int) -> None:
    assert id_of(number) == id_of(str(number)) == number
    assert outward(str(number)) == number


@pytest.mark.parametrize("text", ["007", "-5", "+5", str(MAX_ID + 1), "1e3", "1.0", "٣", "user_5", "SKU 1/ä", "<a_1>"])
def test_anything_else_is_a_text_and_stays_one(text: str) -> None:
    assert id_of(text) == stable_id(text)
    assert outward(text) == text


def test_a_number_too_large_for_64_bits_is_named_by_how_it_is_written() -> None:
    assert id_of(2**64) == stable_id("18446744073709551616")


@pytest.mark.parametrize("bad", ["", " a", "a ", "a\nb", "a\u2028b", "\x00", "a" * 257, True, None, 1.5])
def test_what_cannot_be_an_id_is_refused(bad: object) -> None:
    with pytest.raises(InvalidInput, match="is no id"):
        id_of(bad)  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40))
def test_what_went_in_decides_what_comes_out(text: str) -> None:
    if text == text.strip():
        assert str(outward(text)) == text
        assert id_of(text) == id_of(outward(text))


def test_many_ids_are_the_ids_of_each_and_numpys_numbers_are_numbers() -> None:
    mixed = [7, "7", "SKU-1", 2**64, np.int64(9), 0, MAX_ID]
    assert ids_of(mixed) == [id_of(it) for it in mixed]
    assert ids_of(mixed)[-3:] == [9, 0, MAX_ID]
    assert all(type(it) is int for it in ids_of(mixed))
    with pytest.raises(InvalidInput):
        ids_of([7, True])
