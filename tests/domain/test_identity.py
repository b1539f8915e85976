"""Ids: stable, 63 bits wide, spread out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.identity import MAX_ID, stable_id


@pytest.mark.parametrize(
    ("source_id", "expected"),
    [
        ("", 8238016292129134938),
        ("B00005N7P0", 44019851868283391),
        ("广告", 1527994229887053879),
    ],
)
def test_ids_are_the_same_on_every_machine(source_id: str, expected: int) -> None:
    assert stable_id(source_id) == expected


@given(st.text())
def test_ids_fit_a_signed_64_bit_column(source_id: str) -> None:
    assert 0 <= stable_id(source_id) <= MAX_ID == 2**63 - 1


def test_many_names_give_as_many_ids() -> None:
    count = 20_011
    ids = {stable_id(f"ad-{number}") for number in range(count)}
    assert len(ids) == count
    assert 0.49 < sum(each > MAX_ID // 2 for each in ids) / count < 0.51
