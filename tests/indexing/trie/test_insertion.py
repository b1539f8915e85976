from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leadre.indexing.trie.insertion import Insertion


@given(st.lists(st.integers(0, 20), max_size=20), st.lists(st.integers(0, 20), max_size=20))
def test_merging_sorted_columns_equals_sorting_them_together(old: list[int], new: list[int]) -> None:
    before, added = np.sort(np.array(old, np.int16)), np.sort(np.array(new, np.int16))
    at = Insertion(np.searchsorted(before, added, side="right"), rows=len(before))
    merged = at.merge(before, added)
    assert merged.dtype == before.dtype
    assert merged.tolist() == sorted(old + new)
    assert merged[at.moved(np.arange(len(before)))].tolist() == before.tolist()
    assert merged[at.added].tolist() == added.tolist()


@given(st.integers(0, 5), st.integers(0, 4))
def test_rows_of_several_values_move_together(old: int, new: int) -> None:
    rows, more = np.arange(old * 3).reshape(old, 3), -np.arange(new * 3).reshape(new, 3)
    merged = Insertion(np.full(new, old // 2), rows=old).merge(rows, more)
    np.testing.assert_array_equal(merged, np.concatenate([rows[: old // 2], more, rows[old // 2 :]]))
