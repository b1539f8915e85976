"""How varied and how valuable lists are.

LEADRE §5.2.3 (Concentration, Abundance, Diversity score, LTRR@K), §5.2.6 (Eq. 7). The paper gives no formula for the
Diversity score, only its direction; ours is (1 - Concentration) x Abundance / K, which lies in [0, 1).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.ranking import ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Over all users' lists.

    Args:
        concentration: mean share of a list's most frequent category.
        abundance: mean number of categories in a list.
        score: (1 - concentration) x abundance / K.
    """

    concentration: float
    abundance: float
    score: float


def diversity(categories: NDArray[np.int64]) -> Diversity:
    """Return the diversity of lists.

    Args:
        categories: int64[n, K], category of each retrieved ad; short lists are padded with `ABSENT`. Empty lists are
            left out.
    """
    ordered = np.sort(categories[(categories != ABSENT).any(axis=1)], axis=1)
    users, width = ordered.shape
    if users == 0:
        return Diversity(concentration=0.0, abundance=0.0, score=0.0)
    filled = ordered != ABSENT
    lengths = filled.sum(axis=1)
    distinct = filled[:, 0].astype(np.int64) + (filled[:, 1:] & (ordered[:, 1:] != ordered[:, :-1])).sum(axis=1)
    # Sorted, a category with j + 1 ads has equal neighbours at distance j.
    most = np.ones(users, np.int64)
    for distance in range(1, width):
        most += (filled[:, distance:] & (ordered[:, distance:] == ordered[:, :-distance])).any(axis=1)
    concentration, abundance = float((most / lengths).mean()), float(distinct.mean())
    return Diversity(concentration=concentration, abundance=abundance, score=(1 - concentration) * abundance / width)


def ltr_recall(lists: NDArray[np.int64], labels: Sequence[Collection[int]], *, cutoff: int) -> float:
    """Return LTRR@cutoff: the mean share of a user's labelled ads that are among the first `cutoff` retrieved.

    Args:
        lists: int64[n, K], ad ids, best first, padded with `ABSENT`.
        labels: n collections of ad ids that other retrieval strategies chose; users without any are left out.
        cutoff: K of Recall@K.
    """
    shares = [
        len(set(row) & set(wanted)) / len(set(wanted))
        for row, wanted in zip(lists[:, :cutoff].tolist(), labels, strict=True)
        if wanted
    ]
    return float(np.mean(shares)) if shares else 0.0


def mean_ecpm(ecpm: NDArray[np.float64], *, cutoff: int) -> float:
    """Return the mean eCPM of the first `cutoff` ads of a list, averaged over users; 0 without any list.

    Args:
        ecpm: float64[n, K], revenue per 1,000 impressions of each retrieved ad; NaN where a list has ended.
        cutoff: ads that count.
    """
    top = ecpm[:, :cutoff]
    top = top[~np.isnan(top).all(axis=1)]
    return float(np.nanmean(top, axis=1).mean()) if len(top) else 0.0


def dice(first: Collection[int], second: Collection[int]) -> float:
    """Return Eq. 7, 2|A ∩ B| / (|A| + |B|), of two retrieved lists; 1 for two empty ones."""
    a, b = set(first), set(second)
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
