"""How the signal's counted half, co-visitation, differs from mere popularity at some positions: on few ads each.

Ours. The signal is p_i ~ exp((1 - s) z_i) (count_i + popular_i / total)^s with SASRec's logits z (see
leadre.collaborative.blend). For nearly all ads the count is zero and popular_i^s, the same everywhere, is left; what
differs is a factor on few ads. An ad that may not come again has the factor 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from leadre.collaborative.blend import VISITS, Collaborative
from leadre.evaluation.baselines import FARTHEST, Histories, places
from leadre.indexing.trie.ranges import spread

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Bools = NDArray[np.bool_]
_HALF_A_COUNT = 0.5 / FARTHEST  # the least that a pair brings is twice that: below is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Factors on popular_i^s: int64[m], int64[m] and float32[m], by ascending position; no item twice at one."""

    position: Int64s
    item: Int64s
    factor: NDArray[np.float32]


def factors(
    signal: Collaborative, histories: Histories, place: Int64s, *, temperature: float, without_own: bool
) -> list[Factors]:
    """Return the factors at some positions, to be applied one after the other.

    Args:
        signal: counted on these rows and others.
        histories: some rows, up to their last target.
        place: int64[n], positions among the items of these rows; each knows what is before it in its row.
        temperature: of the distribution over ads.
        without_own: leave out what the row itself brought to counts and popularity, also by what is behind the place.
    """
    number, known = places(histories.items, signal.items)
    rows = histories.rows
    row_of, begins = rows[place], histories.offsets[rows[place]]
    position, seen = _known(spread(begins, place), known)
    shape = (len(place), len(number))
    pairs = signal.co_visitation.pairs[number]
    total = np.full(len(place), signal.popular.sum())
    if without_own:
        pairs = pairs - _own_pairs(rows, number, known, shape=pairs.shape)
        pairs.data[pairs.data < _HALF_A_COUNT] = 0.0
        total -= np.bincount(rows[known], minlength=len(histories))[row_of]
    # count x total / popular, all at once: the asking side brings the total, the pairs' side what is divided by
    asked = sparse.coo_array((total[position] / VISITS / (place[position] - seen), (position, seen)), shape=shape)
    pairs.data /= signal.popular[pairs.indices]
    counts = asked.tocsr().astype(np.float32) @ pairs.astype(np.float32)
    power = np.float32(signal.share / temperature)
    at, item = np.repeat(np.arange(len(place)), np.diff(counts.indptr)), counts.indices.astype(np.int64)
    found = [Factors(position=at, item=item, factor=(1.0 + counts.data) ** power)]
    if without_own:
        around, there = _known(spread(begins, histories.offsets[row_of + 1]), known)
        at, item, own = _distinct(around, number[there], items=len(signal.items))
        count = counts[at, item]
        left = 1.0 - own / signal.popular[item]
        found.append(_factors(at, item, ((left.clip(min=0.0) + count) / (1.0 + count)) ** power))
    if signal.seen == "leave_out":
        at, item, _ = _distinct(position, number[seen], items=len(signal.items))
        found.append(_factors(at, item, np.zeros(len(at))))
    return found


def _own_pairs(rows: Int64s, number: Int64s, known: Bools, *, shape: tuple[int, int]) -> sparse.csr_array:
    """Return what each row brought to the pairs of each of its items, wherever in the row the item stands."""
    first: Int64s = np.unique(rows * shape[1] + number, return_index=True, return_inverse=True)[2]
    earlier, later, weights = [], [], []
    for distance in range(1, FARTHEST + 1):
        together = (rows[distance:] == rows[:-distance]) & known[distance:] & known[:-distance]
        if not (rows[distance:] == rows[:-distance]).any():
            break
        earlier.append(first[:-distance][together])
        later.append(number[distance:][together])
        weights.append(np.full(int(together.sum()), 1.0 / distance))
    if not earlier:
        return sparse.csr_array(shape)
    of_item = sparse.coo_array(
        (np.concatenate(weights), (np.concatenate(earlier), np.concatenate(later))), shape=shape
    ).tocsr()
    return of_item[first]


def _known(ranges: tuple[Int64s, Int64s], known: Bools) -> tuple[Int64s, Int64s]:
    position, place = ranges
    kept = known[place]
    return position[kept], place[kept]


def _distinct(position: Int64s, item: Int64s, *, items: int) -> tuple[Int64s, Int64s, Int64s]:
    """Return each (position, item) once, ascending, and how often it is there."""
    keys, times = np.unique(position * items + item, return_counts=True)
    at, kept = np.divmod(keys, items)
    return at, kept, times


def _factors(position: Int64s, item: Int64s, factor: Float64s) -> Factors:
    return Factors(position=position, item=item, factor=factor.astype(np.float32))
