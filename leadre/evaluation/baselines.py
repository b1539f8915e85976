"""Baselines every figure is printed beside: popularity and co-visitation.

Ours; the paper prints none. Both give full lists: co-visitation fills up with popular items. Whether what a user
already has may come again is the data's affair (a product is bought once, an ad is clicked twice): the caller says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from leadre.evaluation.ranking import ABSENT

FARTHEST = 50
"""Items further apart in a sequence are not counted as visited together."""
_ROWS_AT_ONCE = 2_048
REPEATED_FROM = 0.01
"""From this share of repeated items on, the data has repeats."""

Seen = Literal["keep", "leave_out"]
"""What becomes of the items of a row's own history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """Item sequences, flat: row i holds items[offsets[i]:offsets[i + 1]], oldest first (int64[n + 1], int64[B])."""

    offsets: NDArray[np.int64]
    items: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int64]]) -> Histories:
        """Return rows of items as histories."""
        items = np.concatenate([np.empty(0, np.int64), *rows])
        return cls(offsets=np.cumsum([0, *map(len, rows)]), items=items)

    def take(self, chosen: NDArray[np.int64]) -> Histories:
        """Return some of the rows, int64[m], in the order given."""
        return Histories.of([self.items[self.offsets[row] : self.offsets[row + 1]] for row in chosen.tolist()])

    def parts(self, rows: int) -> Iterator[tuple[int, Histories]]:
        """Give the histories in blocks of so many rows, each with the number of its first row."""
        for start in range(0, len(self), rows):
            offsets = self.offsets[start : start + rows + 1]
            yield start, Histories(offsets=offsets - offsets[0], items=self.items[offsets[0] : offsets[-1]])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each item, int64[B]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def seen(self) -> Seen:
        """Whether items repeat within a row often enough to be worth recommending again."""
        order = np.lexsort((self.items, self.rows))
        rows, items = self.rows[order], self.items[order]
        repeated = int(((rows[1:] == rows[:-1]) & (items[1:] == items[:-1])).sum())
        return "keep" if repeated >= max(1, REPEATED_FROM * len(self.items)) else "leave_out"


class Popularity:
    """The most frequent items of the training histories."""

    def __init__(self, ranked: NDArray[np.int64]) -> None:
        self._ranked = ranked
        self._by_id = np.argsort(ranked, kind="stable")

    @classmethod
    def fit(cls, train: Histories) -> Popularity:
        """Count; among equally frequent items the smaller id is first."""
        items, counts = np.unique(train.items, return_counts=True)
        return cls(items[np.lexsort((items, -counts))])

    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]:
        """Return the k most popular items for each row: int64[n, k], padded with `ABSENT`."""
        if seen == "keep":
            top = np.full((len(histories), k), ABSENT, np.int64)
            top[:, : len(self._ranked)] = self._ranked[:k]
            return top
        longest = int(np.diff(histories.offsets).max(initial=0))
        candidates = self._ranked[: k + longest]
        had = np.zeros((len(histories), len(candidates)), np.bool_)
        place, known = places(histories.items, self._ranked[self._by_id])
        row, place = histories.rows[known], self._by_id[place[known]]
        near = place < len(candidates)
        had[row[near], place[near]] = True
        return _first_valid(np.broadcast_to(candidates, had.shape), ~had, k)


class CoVisitation:
    """Items that followed the items of a history in other users' sequences.

    A later item at distance d adds 1 / d to its pair; the i-th newest item of the asking history weighs 1 / i.
    """

    def __init__(self, items: NDArray[np.int64], pairs: sparse.csr_array, popularity: Popularity) -> None:
        self.items, self.pairs, self._popularity = items, pairs, popularity

    @classmethod
    def fit(cls, train: Histories, *, farthest: int = FARTHEST) -> CoVisitation:
        """Count the pairs of the training histories, up to `farthest` apart."""
        items, numbers = np.unique(train.items, return_inverse=True)
        rows = train.rows
        pairs = sparse.csr_array((len(items), len(items)))
        for distance in range(1, farthest + 1):
            together = rows[distance:] == rows[:-distance]
            if not together.any():
                break
            earlier, later = numbers[:-distance][together], numbers[distance:][together]
            weights = np.full(len(earlier), 1.0 / distance)
            pairs += sparse.coo_array((weights, (earlier, later)), shape=pairs.shape).tocsr()
        return cls(items, pairs, Popularity.fit(train))

    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]:
        """Return the k best items for each row: int64[n, k], padded with `ABSENT`."""
        found = np.full((len(histories), k), ABSENT, np.int64)
        for start, part in histories.parts(_ROWS_AT_ONCE):
            found[start : start + len(part)] = self._top(part, k, seen)
        popular = self._popularity.top(histories, 2 * k, seen=seen)
        repeated = (popular[:, :, None] == found[:, None, :]).any(axis=2)
        both = np.hstack([found, popular])
        return _first_valid(both, np.hstack([found != ABSENT, ~repeated & (popular != ABSENT)]), k)

    def scores(self, histories: Histories, *, seen: Seen) -> sparse.csr_array:
        """Return how much speaks for each of `items`, float64[n, items], sparse."""
        shape = (len(histories), len(self.items))
        rows = histories.rows
        age = histories.offsets[1:][rows] - np.arange(len(rows))  # 1 for a row's newest item
        number, known = places(histories.items, self.items)
        rows, number, age = rows[known], number[known], age[known]
        asked = sparse.coo_array((1.0 / age, (rows, number)), shape=shape).tocsr()
        scores = asked @ self.pairs
        if seen == "leave_out":
            had = asked.copy()
            had.data[:] = 1.0
            scores = scores - scores.multiply(had)
        return scores.tocsr()

    def _top(self, histories: Histories, k: int, seen: Seen) -> NDArray[np.int64]:
        scores = self.scores(histories, seen=seen)
        found = np.full((len(histories), k), ABSENT, np.int64)
        for row, (low, high) in enumerate(zip(scores.indptr[:-1], scores.indptr[1:], strict=True)):
            score, column = scores.data[low:high], scores.indices[low:high]
            if len(score) > k:
                near = score >= np.partition(score, -k)[-k]
                score, column = score[near], column[near]
            best = np.lexsort((column, -score))[: min(k, int((score > 0).sum()))]
            found[row, : len(best)] = self.items[column[best]]
        return found


def places(items: NDArray[np.int64], ascending: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each item stands among `ascending` (int64[n]), and whether it is there (bool[n])."""
    if len(ascending) == 0:
        return np.zeros(len(items), np.int64), np.zeros(len(items), np.bool_)
    place = np.minimum(np.searchsorted(ascending, items), len(ascending) - 1)
    return place, ascending[place] == items


def _first_valid(values: NDArray[np.int64], valid: NDArray[np.bool_], k: int) -> NDArray[np.int64]:
    """Return the first k valid values of each row, in their order: int64[n, k], padded with `ABSENT`."""
    place = np.cumsum(valid, axis=1) - 1
    chosen = valid & (place < k)
    row, column = np.nonzero(chosen)
    first = np.full((len(values), k), ABSENT, np.int64)
    first[row, place[row, column]] = values[row, column]
    return first
