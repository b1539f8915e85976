from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.indexing.assign import MAX_SLOTS, disambiguate, first_free, reserved_slots
from leadre.indexing.trie import Trie


def naive(codes: np.ndarray, ad_ids: np.ndarray, taken: np.ndarray) -> list[list[int]]:
    following: dict[tuple[int, ...], int] = {}
    for *prefix, last in taken.tolist():
        following[tuple(prefix)] = max(following.get(tuple(prefix), 0), last + 1)
    sids: list[list[int]] = [[] for _ in codes]
    for row in np.argsort(ad_ids):
        prefix = tuple(codes[row].tolist())
        sids[row] = [*prefix, following.get(prefix, 0)]
        following[prefix] = sids[row][-1] + 1
    return sids


CODES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40)


@settings(deadline=None)
@given(CODES, CODES, st.randoms(use_true_random=False))
def test_sids_are_unique_stable_and_equal_the_loop(
    first: list[tuple[int, int]], second: list[tuple[int, int]], random: object
) -> None:
    old, new = (np.array(rows, np.int32).reshape(-1, 2) for rows in (first, second))
    ids = np.arange(len(old) + len(new), dtype=np.int64)
    random.shuffle(ids)  # type: ignore[attr-defined]
    taken = disambiguate(old, ids[: len(old)])
    left = taken[::2]  # half of them have left, the others keep their S-IDs
    assert taken.tolist() == naive(old, ids[: len(old)], left[:0])
    trie = Trie.build(np.array(sorted(left.tolist()), np.int32).reshape(-1, 3))
    sids = disambiguate(new, ids[len(old) :], following=first_free(trie, new))
    assert sids.tolist() == naive(new, ids[len(old) :], left)
    assert len(np.unique(np.concatenate([left, sids]), axis=0)) == len(left) + len(sids)


def test_the_order_of_rows_does_not_matter() -> None:
    codes = np.array([[1, 1], [1, 1], [0, 2], [1, 1]], np.int32)
    ids = np.array([40, 10, 30, 20])
    assert disambiguate(codes, ids)[:, -1].tolist() == [2, 0, 0, 1]
    order = np.array([3, 0, 2, 1])
    assert disambiguate(codes[order], ids[order])[:, -1].tolist() == [1, 2, 0, 0]


def test_too_many_ads_with_the_same_codes_are_refused_with_a_remedy() -> None:
    codes = np.array([[5, 6]] * 4, np.int32)
    with pytest.raises(
        InvalidInput, match=r"4 ads share the codes <a_5, b_6> .* 3 disambiguation codes .*repeated ads"
    ):
        disambiguate(codes, np.arange(4), slots=3)
    assert len(disambiguate(codes, np.arange(4), slots=4)) == 4


def test_an_index_reserves_room_for_ads_to_come() -> None:
    assert reserved_slots(np.array([[1, 0]], np.int32)) == 8
    assert reserved_slots(np.array([[1, 0], [1, 8]], np.int32)) == 18
    assert reserved_slots(np.array([[1, 60_000]], np.int32)) == MAX_SLOTS
