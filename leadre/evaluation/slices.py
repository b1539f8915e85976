"""Slices: groups of evaluated users whose figures an average hides.

LEADRE §5.4 (25 groups by ARPU; here five bands of five) and ours: cold ads, which an id-only model cannot retrieve;
short histories, of which there is little to read; and targets that somebody's history has right after the same ad,
which a model of ids can have memorised, against targets that no transition leads to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.baselines import Histories, places
from leadre.evaluation.ranking import ABSENT

SHORT_HISTORY = 5
"""A history of at most so many ad behaviors is short (ours)."""
ARPU_BANDS = 5

Mask = NDArray[np.bool_]


def slices(
    *,
    targets: NDArray[np.int64],
    train: Histories,
    before: Histories,
    arpu_groups: NDArray[np.int64],
    group_count: int,
) -> dict[str, Mask]:
    """Return who belongs to each slice, bool[n]; slices without users are left out.

    Those of `by_knowledge`; then "arpu_0_4" to "arpu_20_24": bands of ARPU groups, unless all users are of one group.

    Args:
        targets: int64[n], each user's test ad.
        train: all training histories.
        before: of the n users, the ads before the target.
        arpu_groups: int64[n], 0 (lowest ARPU) to group_count - 1.
        group_count: a multiple of `ARPU_BANDS`.
    """
    found = by_knowledge(targets=targets, train=train, before=before)
    if len(np.unique(arpu_groups)) > 1:
        width = group_count // ARPU_BANDS
        for low in range(0, group_count, width):
            found[f"arpu_{low}_{low + width - 1}"] = (arpu_groups >= low) & (arpu_groups < low + width)
    return {name: mask for name, mask in found.items() if mask.any()}


def by_knowledge(*, targets: NDArray[np.int64], train: Histories, before: Histories) -> dict[str, Mask]:
    """Return who belongs to each slice by what can be known of the target, bool[n]; some may have no users.

    "cold_ads": the target is in no training history. "short_histories": at most `SHORT_HISTORY` ad behaviors before the
    target. "seen_transitions": some training history has the target right after the user's last ad;
    "unseen_transitions": none has.

    Args:
        targets: int64[n], each user's test ad.
        train: all training histories.
        before: of the n users, the ads before the target.
    """
    known = np.diff(before.offsets)
    last = np.full(len(before), ABSENT, np.int64)
    last[known > 0] = before.items[before.offsets[1:][known > 0] - 1]
    seen = seen_transitions(last, targets, train)
    return {
        "cold_ads": ~np.isin(targets, train.items),
        "short_histories": known <= SHORT_HISTORY,
        "seen_transitions": seen,
        "unseen_transitions": ~seen,
    }


def seen_transitions(last: NDArray[np.int64], targets: NDArray[np.int64], train: Histories) -> Mask:
    """Return whether some history has the target right after the last ad, bool[n].

    Args:
        last: int64[n], ads; `ABSENT` where there is none.
        targets: int64[n].
        train: the histories.
    """
    items, number = np.unique(train.items, return_inverse=True)
    together = np.flatnonzero(np.diff(train.rows) == 0)
    followed = np.unique(number[together] * len(items) + number[together + 1])
    (first, first_known), (second, second_known) = places(last, items), places(targets, items)
    _, there = places(first * len(items) + second, followed)
    return there & first_known & second_known
