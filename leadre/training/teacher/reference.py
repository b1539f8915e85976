"""The teacher as it is defined, one position at a time: a distribution over all ads, added up below every code.

Ours; LEADRE §3.3. The reference of leadre.training.teacher.masses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.leaves import EVEN_SHARE, nearest_known
from leadre.indexing.ad_index import AdIndex

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


def likely_ads(
    logits: Float64s, counts: Float64s, *, popular: Float64s, share: float, temperature: float, had: Int64s
) -> Float64s:
    """Return the probability of each item, float64[items].

    Args:
        logits: float64[items], SASRec's.
        counts: float64[items], co-visitation's.
        popular: float64[items], how often each was clicked.
        share: of co-visitation in the mean of the logarithms.
        temperature: of the distribution.
        had: int64[n], items that may not come again.
    """
    with np.errstate(divide="ignore"):
        visited = np.log(counts + popular / max(popular.sum(), 1.0))
    scores = (1.0 - share) * logits + (share * visited if share else 0.0)
    scores = scores / temperature
    scores[had] = -np.inf
    likely = np.exp(scores - scores.max()) if np.isfinite(scores.max()) else np.zeros(len(scores))
    distribution: Float64s = likely / max(likely.sum(), np.finfo(np.float64).tiny)
    return distribution


def rows_of(likely: Float64s, leaf: int, *, items: Int64s, index: AdIndex) -> list[dict[int, float]]:
    """Return for each level the probability of every code after the prefix of a leaf.

    Args:
        likely: float64[items].
        leaf: the target's.
        items: int64[items], ad ids.
        index: with the trie.
    """
    on_leaves = likely[nearest_known(index, items)]
    on_leaves = on_leaves / max(on_leaves.sum(), np.finfo(np.float64).tiny)
    on_leaves = (1.0 - EVEN_SHARE) * on_leaves + EVEN_SHARE / len(index)
    codes = index.trie.codes_of(np.arange(len(index)))
    rows = []
    for level in range(codes.shape[1]):
        below = (codes[:, :level] == codes[leaf, :level]).all(axis=1)
        mass = on_leaves[below]
        said: dict[int, float] = {}
        for code, part in zip(codes[below, level].tolist(), (mass / mass.sum()).tolist(), strict=True):
            said[code] = said.get(code, 0.0) + part
        rows.append(said)
    return rows
