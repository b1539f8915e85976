"""Slices: groups of evaluated users whose figures an average hides.

LEADRE §5.4 (25 groups by ARPU; here five bands of five) and ours: cold ads, which an id-only model cannot retrieve, and
short histories, of which there is little to read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHORT_HISTORY = 5
"""A history of fewer ad behaviors is short."""
ARPU_BANDS = 5

Mask = NDArray[np.bool_]


def slices(
    *,
    targets: NDArray[np.int64],
    learnt: NDArray[np.int64],
    known: NDArray[np.int64],
    arpu_groups: NDArray[np.int64],
    group_count: int,
) -> dict[str, Mask]:
    """Return who belongs to each slice, bool[n]; slices without users are left out.

    "cold_ads": the target is in no training history. "short_histories": fewer than `SHORT_HISTORY` ad behaviors before
    the target. "arpu_0_4" to "arpu_20_24": bands of ARPU groups, unless all users are of one group.

    Args:
        targets: int64[n], each user's test ad.
        learnt: int64[B], ads of all training histories.
        known: int64[n], ad behaviors of the user before the target.
        arpu_groups: int64[n], 0 (lowest ARPU) to group_count - 1.
        group_count: a multiple of `ARPU_BANDS`.
    """
    found = {"cold_ads": ~np.isin(targets, learnt), "short_histories": known < SHORT_HISTORY}
    if len(np.unique(arpu_groups)) > 1:
        width = group_count // ARPU_BANDS
        for low in range(0, group_count, width):
            found[f"arpu_{low}_{low + width - 1}"] = (arpu_groups >= low) & (arpu_groups < low + width)
    return {name: mask for name, mask in found.items() if mask.any()}
