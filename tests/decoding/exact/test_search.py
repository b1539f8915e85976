from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.decoding.exact.search import search, segmented_top
from leadre.errors import NoValidContinuation
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask

values = st.sampled_from([-np.inf, -3.5, -1.0, -0.25, 0.0])


@given(segments=st.lists(st.lists(values, max_size=9), min_size=1, max_size=5), width=st.integers(1, 11))
def test_segmented_top_is_a_stable_sort_cut_off(segments: list[list[float]], width: int) -> None:
    scores = np.array([score for segment in segments for score in segment])
    segment = np.repeat(np.arange(len(segments)), [len(segment) for segment in segments])

    chosen = segmented_top(scores, segment, segments=len(segments), width=width)

    expected: list[int] = []
    for number in range(len(segments)):
        rows = np.flatnonzero(segment == number)
        expected += rows[np.argsort(-scores[rows], kind="stable")][:width].tolist()
    assert chosen.tolist() == expected


class FixedReading:
    """The same probabilities whatever the beam."""

    def __init__(self, log_probabilities: list[np.ndarray], *, prompts: int) -> None:
        self._levels, self._prompts = log_probabilities, prompts
        self.fed: list[int] = []
        self.rows: list[int] = []
        self.ahead = 0

    def first(self) -> np.ndarray:
        return np.tile(self._levels[0], (self._prompts, 1))

    def next(self, level: int, parents: np.ndarray, codes: np.ndarray) -> np.ndarray:
        self.fed.append(level)
        self.rows.append(len(parents))
        return np.tile(self._levels[level], (len(parents), 1))

    def next_two(
        self, level: int, parents: np.ndarray, codes: np.ndarray, child_parents: np.ndarray, child_codes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self.ahead += 1
        return self.next(level, parents, codes), self.next(level + 1, child_parents, child_codes)


def test_the_last_code_is_never_fed(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.log(np.full(count, 1 / count, np.float32)) for count in (7, 5, 6, 4)]
    reading = FixedReading(levels, prompts=2)

    search(reading, make_index().trie, filters=[None, None], prompt_of=np.arange(2), beam_width=3, score="level")

    assert reading.fed == [1, 2, 3]


def test_impossible_codes_come_last_but_are_ads(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.log(np.full(count, 1 / count, np.float32)) for count in (7, 5, 6, 4)]
    levels[0][3] = -np.inf
    index = make_index(200)

    found = search(
        FixedReading(levels, prompts=1),
        index.trie,
        filters=[None],
        prompt_of=np.arange(1),
        beam_width=200,
        score="level",
    )

    impossible = index.codes[found.node][:, 0] == 3
    assert len(found.node) == 200
    assert 0 < impossible.sum() == np.isneginf(found.score).sum() == impossible[-impossible.sum() :].sum()


def test_a_mask_without_live_ads_below_a_prompt_is_an_error(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.zeros(count, np.float32) for count in (7, 5, 6, 4)]
    nothing = LiveMask.of(np.zeros(60, np.bool_))

    with pytest.raises(NoValidContinuation, match="depth 0"):
        search(
            FixedReading(levels, prompts=2),
            make_index().trie,
            filters=[None, nothing],
            prompt_of=np.arange(2),
            beam_width=2,
            score="level",
        )


def sparse_codes() -> np.ndarray:
    """Forty S-IDs of which no two share their first two codes: below depth 2 every node has one child."""
    prefixes = np.stack(np.unravel_index(np.arange(35), (7, 5)), axis=1)
    random = np.random.default_rng(0)
    return np.column_stack([prefixes, random.integers(0, 6, 35), random.integers(0, 4, 35)])


def test_where_nodes_have_one_child_two_levels_take_one_pass(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.log(np.full(count, 1 / count, np.float32)) for count in (7, 5, 6, 4)]
    reading = FixedReading(levels, prompts=1)
    index = make_index(codes=sparse_codes())

    found = search(reading, index.trie, filters=[None], prompt_of=np.arange(1), beam_width=9, score="raw")

    assert (reading.fed, reading.ahead) == ([1, 2, 3], 1)
    assert len(set(found.node.tolist())) == 9


def test_valid_scores_feed_no_beam_whose_ad_is_certain(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.zeros(count, np.float32) for count in (7, 5, 6, 4)]
    reading = FixedReading(levels, prompts=1)
    index = make_index(codes=sparse_codes())

    found = search(reading, index.trie, filters=[None], prompt_of=np.arange(1), beam_width=35, score="valid")

    assert reading.fed == [1]
    assert np.exp(found.score) == pytest.approx(np.full(35, 1 / 35))


def test_valid_scores_feed_only_the_uncertain_beams(make_index: Callable[..., AdIndex]) -> None:
    levels = [np.zeros(count, np.float32) for count in (7, 5, 6, 4)]
    reading = FixedReading(levels, prompts=1)
    codes = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 5, 3], [2, 0, 1, 1], [2, 4, 1, 1]])

    found = search(
        reading, make_index(codes=codes).trie, filters=[None], prompt_of=np.arange(1), beam_width=9, score="valid"
    )

    assert (reading.fed, reading.rows) == ([1, 2, 3], [2, 1, 1])
    assert np.exp(found.score) == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 6])
