"""The array trie equals Algorithm 1's dict trie, on any S-IDs and under any live mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie.reference import Node, build_trie

Codes = NDArray[np.int64]


@st.composite
def sorted_codes(draw: st.DrawFn) -> Codes:
    """Unique S-IDs in order: few codes a level, so that prefixes are shared; now and then very wide ones."""
    levels = draw(st.integers(1, 6))
    highest = draw(st.lists(st.sampled_from([1, 2, 5, 1023, 2**31 - 1]), min_size=levels, max_size=levels))
    row = st.tuples(*(st.integers(0, high) for high in highest))
    rows = sorted(draw(st.sets(row, max_size=60)))
    return np.array(rows, np.int64).reshape(len(rows), levels)


def dict_trie(codes: Codes) -> Node:
    return build_trie([(leaf, row) for leaf, row in enumerate(codes.tolist())])


def assert_same(trie: Trie, codes: Codes, reference: Node, live: LiveMask | None = None) -> None:
    """Walk both tries depth by depth and compare the children of every node the array trie reaches."""
    prefixes: list[tuple[int, ...]] = [()]
    nodes = np.zeros(1, np.int64)
    for depth in range(trie.levels):
        children = trie.children(depth, nodes, live=live)
        expected = []
        for parent, prefix in enumerate(prefixes):
            node = reference.below(prefix)
            expected += [(parent, code) for code in sorted(node.children)] if node else []
        assert list(zip(children.parent.tolist(), children.code.tolist(), strict=True)) == expected
        prefixes = [(*prefixes[parent], code) for parent, code in expected]
        nodes = children.node
        low, high = trie.leaf_range(depth + 1, nodes)
        for prefix, first, last in zip(prefixes, low.tolist(), high.tolist(), strict=True):
            assert np.flatnonzero((codes[:, : depth + 1] == prefix).all(axis=1)).tolist() == list(range(first, last))
        np.testing.assert_array_equal(trie.find(np.array(prefixes, np.int64).reshape(-1, depth + 1)), nodes)
    reached = [reference.below(prefix) for prefix in prefixes]
    assert [node.ad for node in reached if node] == nodes.tolist()


@settings(deadline=None)
@given(sorted_codes())
def test_children_at_every_depth_equal_the_dict_trie(codes: Codes) -> None:
    assert_same(Trie.build(codes), codes, dict_trie(codes))


@settings(deadline=None)
@given(sorted_codes(), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_a_live_mask_gives_the_trie_rebuilt_from_the_live_ads(codes: Codes, random: object, share: float) -> None:
    live = np.array([random.random() < share for _ in codes], np.bool_)  # type: ignore[attr-defined]
    rebuilt = build_trie([(leaf, row) for leaf, row in enumerate(codes.tolist()) if live[leaf]])
    assert_same(Trie.build(codes), codes, rebuilt, LiveMask.of(live))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=300), st.lists(st.booleans(), max_size=300))
def test_counts_of_a_mask_and_of_two_combined_equal_sums(first: list[bool], second: list[bool]) -> None:
    size = min(len(first), len(second))
    mine, theirs = np.array(first[:size], np.bool_), np.array(second[:size], np.bool_)
    low = np.repeat(np.arange(size + 1), size + 1)
    high = np.tile(np.arange(size + 1), size + 1)
    low, high = low[low <= high], high[low <= high]
    for mask, truth in ((LiveMask.of(mine), mine), (LiveMask.of(mine) & LiveMask.of(theirs), mine & theirs)):
        sums = np.append(0, np.cumsum(truth))
        np.testing.assert_array_equal(mask.count(low, high), sums[high] - sums[low])
        assert mask.live_leaves == truth.sum()


@given(sorted_codes(), st.randoms(use_true_random=False), st.floats(0, 1))
def test_new_sids_give_the_trie_built_from_all(codes: Codes, random: object, share: float) -> None:
    new = np.array([random.random() < share for _ in codes], np.bool_)  # type: ignore[attr-defined]
    grown = Trie.build(codes[~new]).with_added(codes[new]).arrays()
    built = Trie.build(codes).arrays()
    assert grown.keys() == built.keys()
    for name, array in built.items():
        assert grown[name].dtype == array.dtype
        np.testing.assert_array_equal(grown[name], array)


def test_new_sids_join_stored_depths_at_their_ends_and_in_between() -> None:
    random = np.random.default_rng(0)
    codes = np.unique(random.integers(1, 7, (6000, 5)), axis=0)  # three depths are stored by node
    codes = codes[codes[:, 1] != 3]
    new = np.unique(random.integers(0, 8, (300, 5)), axis=0)
    old = codes[~(codes[:, None] == new).all(axis=2).any(axis=1)]
    everything = np.unique(np.concatenate([old, new]), axis=0)
    for some in (new, new[:1], new[-1:], new[:0], new[::7]):
        grown, built = Trie.build(old).with_added(some), Trie.build(np.unique(np.concatenate([old, some]), axis=0))
        assert grown.shallow == 3
        for name, array in built.arrays().items():
            np.testing.assert_array_equal(grown.arrays()[name], array)
    np.testing.assert_array_equal(Trie.build(old).with_added(new).codes_of(np.arange(len(everything))), everything)


def test_what_cannot_join_is_refused() -> None:
    trie = Trie.build(np.array([[1, 2], [1, 4], [3, 1]]))
    with pytest.raises(InvalidInput, match=r"row 2: S-ID \[1, 4\] is there already"):
        trie.with_added(np.array([[1, 3], [1, 4]]))
    with pytest.raises(InvalidInput, match="row 2: S-IDs are not in ascending order"):
        trie.with_added(np.array([[1, 3], [0, 4]]))
    with pytest.raises(InvalidInput, match="have 2 codes here, these have 3"):
        trie.with_added(np.array([[1, 3, 0]]))


class Counted:
    """An array that counts how many of its elements are read."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array, self.dtype, self.read = array, array.dtype, 0

    def take(self, at: NDArray[np.int64]) -> NDArray[np.generic]:
        self.read += at.size
        return self._array.take(at)


def test_a_huge_node_with_few_children_costs_what_its_children_cost() -> None:
    ads = 200_000
    random = np.random.default_rng(0)
    spread = np.stack([random.integers(0, 2**10, ads), random.integers(0, 2**20, ads)], axis=1)
    keys = np.unique(spread @ [2**20, 1])  # too many nodes at depth 2 to store their first leaves
    codes = np.zeros((len(keys) + ads, 5), np.int32)
    codes[ads:, 0], codes[ads:, 1] = (keys >> 20) + 1, keys & (2**20 - 1)
    codes[:ads, 3] = np.arange(ads) >= ads // 3  # 200,000 ads have the codes 0, 0, 0: two codes follow
    codes[:ads, 4] = np.arange(ads)
    trie = Trie.build(codes)
    assert trie.shallow == 1
    arrays = trie.arrays()
    words = {name: Counted(array) for name, array in arrays.items() if name.startswith("word")}
    watched = Trie.from_arrays({**arrays, **words})  # type: ignore[dict-item]
    for depth, children in ((1, 1), (2, 1), (3, 2)):
        before = sum(word.read for word in words.values())
        answer = watched.children(depth, trie.find(np.zeros((1, depth), np.int32)))
        assert answer.code.tolist() == list(range(children))
        assert sum(word.read for word in words.values()) - before <= 200
    sizes = trie.leaf_range(4, answer.node)
    assert (sizes[1] - sizes[0]).tolist() == [ads // 3, ads - ads // 3]


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 200))
def test_all_of_many_masks_is_their_conjunction(seed: int, count: int, leaves: int) -> None:
    truths = np.random.default_rng(seed).random((count, leaves)) < 0.8
    masks = [LiveMask.of(truth) for truth in truths]
    together, expected = LiveMask.all_of(masks), LiveMask.of(truths.all(axis=0))
    np.testing.assert_array_equal(together.words, expected.words)
    np.testing.assert_array_equal(together.ranks, expected.ranks)
    assert together.live_leaves == expected.live_leaves
    assert masks[0].live_leaves == truths[0].sum()  # as it was


def test_no_mask_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no masks to combine"):
        LiveMask.all_of([])


@settings(deadline=None)
@given(sorted_codes(), st.data())
def test_find_and_contains_answer_for_strangers_too(codes: Codes, data: st.DataObject) -> None:
    trie = Trie.build(codes)
    levels = codes.shape[1]
    asked = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(-1, 6)] * levels), min_size=1, max_size=20)), np.int64
    ).reshape(-1, levels)
    known = {tuple(row) for row in codes.tolist()}
    assert trie.contains(asked).tolist() == [tuple(row) in known for row in asked.tolist()]
    for depth in range(1, levels + 1):
        prefixes = {row[:depth] for row in known}
        assert (trie.find(asked[:, :depth]) >= 0).tolist() == [tuple(row[:depth]) in prefixes for row in asked.tolist()]


@settings(deadline=None)
@given(sorted_codes())
def test_a_trie_from_its_arrays_is_the_same_trie(codes: Codes) -> None:
    again = Trie.from_arrays(Trie.build(codes).arrays())
    assert (again.leaves, again.levels) == codes.shape
    assert again.contains(codes).all()


def test_the_same_node_may_be_asked_twice() -> None:
    trie = Trie.build(np.array([[0, 3], [0, 4], [2, 1]]))
    children = trie.children(1, trie.find(np.array([[0], [2], [0]])))
    assert children.parent.tolist() == [0, 0, 1, 2, 2]
    assert children.code.tolist() == [3, 4, 1, 3, 4]
    assert children.node.tolist() == [0, 1, 2, 0, 1]


def test_an_empty_trie_has_a_root_without_children() -> None:
    trie = Trie.build(np.zeros((0, 3), np.int32))
    assert trie.leaves == 0
    assert trie.children(0, trie.find(np.zeros((1, 0), np.int64))).node.size == 0
    assert LiveMask.of(np.zeros(0, np.bool_)).live_leaves == 0


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (np.array([[1, 2], [1, 1]]), "row 2: S-IDs are not in ascending order"),
        (np.array([[1, 2], [3, 1], [3, 1]]), "row 3: S-ID .* twice"),
        (np.array([[-1, 2]]), r"codes must lie in \[0, 2\^31\)"),
        (np.array([[0.5, 2.0]]), "integers"),
        (np.zeros(4, np.int64), "integers"),
    ],
)
def test_what_is_not_a_sorted_set_of_sids_is_refused(codes: Codes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Trie.build(codes)


def test_a_mask_or_depth_of_another_trie_is_refused() -> None:
    trie = Trie.build(np.array([[0, 1], [1, 0], [1, 5]]))
    with pytest.raises(InvalidInput, match="mask covers 4 leaves"):
        trie.children(0, np.zeros(1, np.int64), live=LiveMask.of(np.ones(4, np.bool_)))
    with pytest.raises(InvalidInput, match="not at 2"):
        trie.children(2, np.zeros(1, np.int64))
    with pytest.raises(InvalidInput, match="have 1"):
        trie.contains(np.array([[0]]))
    with pytest.raises(InvalidInput, match="3 and 4 leaves"):
        LiveMask.of(np.ones(3, np.bool_)) & LiveMask.of(np.ones(4, np.bool_))
