"""From ads that the collaborative signal knows to all leaves of an index.

Ours; see leadre.decoding.exact.fusion, which serves so, and leadre.training.teacher, which teaches so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.indexing.ad_index import AdIndex

Int64s = NDArray[np.int64]

EVEN_SHARE = 1e-3
"""So much of the probability is spread evenly over all ads: none is out of the LLM's reach (ours)."""


def nearest_known(index: AdIndex, items: NDArray[np.int64]) -> Int64s:
    """Return for each leaf the number of the item that stands for it: itself, or the one nearest by prefix.

    Args:
        index: its leaves are in the order of their S-IDs.
        items: int64[items], ad ids; at least one.

    Returns:
        int64[leaves], positions in `items`. Among equally near ones the former in the order of S-IDs; where the index
        has none of the items, the first.
    """
    rows = index.rows(items)
    number = np.full(len(index), -1)
    number[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    known = np.flatnonzero(number >= 0)
    if not len(known):
        return np.zeros(len(index), np.int64)
    place = np.searchsorted(known, np.arange(len(index)))
    before, after = known[np.maximum(place - 1, 0)], known[np.minimum(place, len(known) - 1)]
    nearer = np.where(_common(index.codes, after) > _common(index.codes, before), after, before)
    return np.where(number >= 0, number, number[nearer])


def _common(codes: NDArray[np.int32], other: Int64s) -> Int64s:
    """Return how many leading codes each row shares with another row, int64[n]."""
    shared: Int64s = np.cumprod(codes == codes[other], axis=1).sum(axis=1)
    return shared
