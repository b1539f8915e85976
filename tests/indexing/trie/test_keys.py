from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.indexing.trie.keys import keys_of


@pytest.mark.parametrize(("levels", "size"), [(3, 7), (8, 1024)])  # the latter needs 80 bits
@given(st.integers(0, 2**32 - 1))
def test_keys_have_the_order_and_the_equality_of_their_rows(levels: int, size: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(size - 2, size, (23, levels), dtype=np.int32)
    keys = keys_of(codes, size)
    rows = [tuple(row) for row in codes.tolist()]
    for row, key in zip(rows, keys, strict=True):
        for other, other_key in zip(rows, keys, strict=True):
            assert (row < other, row == other) == (key < other_key, key == other_key)
    assert keys.min() >= 0


def test_no_levels_and_no_rows_have_keys() -> None:
    assert keys_of(np.empty((3, 0), np.int32), 5).tolist() == [0, 0, 0]
    assert keys_of(np.empty((0, 2), np.int32), 5).shape == (0,)


def test_63_bits_are_used_whole() -> None:
    codes = np.array([[511] * 7, [0] * 7], np.int32)
    assert keys_of(codes, 512).tolist() == [2**63 - 1, 0]
