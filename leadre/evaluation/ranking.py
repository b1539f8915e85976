"""Hit ratio and NDCG over item-level ranks.

LEADRE §5.1.2. Ads are counted, not S-IDs. With one right ad a user, NDCG@K is 1 / log2(rank + 2) for a hit (rank 0 is
the first place), and Recall@K is HR@K.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

ABSENT = -1
"""Rank of a target that is not in its list; also the padding of lists."""


def ranks_of(targets: NDArray[np.int64], lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each target in its list, 0 the first, `ABSENT` if it is not there.

    Args:
        targets: int64[n], ad ids.
        lists: int64[n, K], ad ids, best first; short lists end in `ABSENT`.

    Raises:
        InvalidInput: another number of lists than of targets.
    """
    if lists.ndim != 2 or len(targets) != len(lists):
        raise InvalidInput(f"{len(targets)} targets for lists of shape {lists.shape}; one row a target is needed")
    found = (lists == targets[:, None]) & (lists != ABSENT)
    if lists.shape[1] == 0:
        return np.full(len(targets), ABSENT, np.int64)
    return np.where(found.any(axis=1), found.argmax(axis=1), ABSENT)


def hits(ranks: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """Return each user's HR@cutoff: 1 where the target is among the first `cutoff`, float64[n]."""
    return ((ranks >= 0) & (ranks < cutoff)).astype(np.float64)


def gains(ranks: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    """Return each user's NDCG@cutoff, float64[n]."""
    return hits(ranks, cutoff) / np.log2(np.maximum(ranks, 0) + 2.0)


def hit_ratio(ranks: NDArray[np.int64], cutoff: int) -> float:
    """Return HR@cutoff over all users; 0 without users."""
    return float(hits(ranks, cutoff).mean()) if len(ranks) else 0.0


def ndcg(ranks: NDArray[np.int64], cutoff: int) -> float:
    """Return NDCG@cutoff over all users; 0 without users."""
    return float(gains(ranks, cutoff).mean()) if len(ranks) else 0.0
