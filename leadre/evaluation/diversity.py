"""How varied and how valuable lists are, and how near to what a user likes.

LEADRE §5.2.3 (Concentration, Abundance, Diversity score, LTRR@K), §5.2.6 (Eq. 7). The paper gives no formula for the
Diversity score, only its direction; ours is (1 - Concentration) x Abundance / K, which lies in [0, 1). The distance of
mixes is ours, after Steck's calibration ("Calibrated recommendations", RecSys 2018).
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
    found = diversity_by_user(categories)
    if np.isnan(found[:, 0]).all():
        return Diversity(concentration=0.0, abundance=0.0, score=0.0)
    concentration, abundance = (float(column) for column in np.nanmean(found[:, :2], axis=0))
    width = categories.shape[1]
    return Diversity(concentration=concentration, abundance=abundance, score=(1 - concentration) * abundance / width)


def diversity_by_user(categories: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each list's own concentration, abundance and score, float64[n, 3]; NaN for an empty list.

    The mean of the scores is near the score of the means, which `diversity` gives, and not equal to it.

    Args:
        categories: as in `diversity`.
    """
    users, width = categories.shape
    ordered = np.sort(categories, axis=1)
    filled = ordered != ABSENT
    lengths = filled.sum(axis=1)
    distinct = filled[:, :1].sum(axis=1) + (filled[:, 1:] & (ordered[:, 1:] != ordered[:, :-1])).sum(axis=1)
    # Sorted, a category with j + 1 ads has equal neighbours at distance j.
    most = np.ones(users, np.int64)
    for distance in range(1, width):
        most += (filled[:, distance:] & (ordered[:, distance:] == ordered[:, :-distance])).any(axis=1)
    concentration = most / np.maximum(lengths, 1)
    made: NDArray[np.float64] = np.stack(
        [concentration, distinct.astype(np.float64), (1 - concentration) * distinct / max(width, 1)], axis=1
    )
    made[lengths == 0] = np.nan
    return made


def mix_distances(
    lists: NDArray[np.int64], histories: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return how far each list's mix of categories is from that of the user's own ads: total variation, float64[n].

    0: the same shares; 1: no category in common; NaN where a list or a history has no ad.

    Args:
        lists: int64[n, K], category of each retrieved ad; short lists are padded with `ABSENT`.
        histories: int64[B], categories of the users' own ads, `ABSENT` where unknown, laid end to end.
        offsets: int64[n + 1], where each user's begin in `histories`.
    """
    users = np.concatenate(
        [np.repeat(np.arange(len(lists)), lists.shape[1]), np.repeat(np.arange(len(lists)), np.diff(offsets))]
    )
    categories, of_list = (
        np.concatenate([lists.ravel(), histories]),
        np.arange(lists.size + len(histories)) < lists.size,
    )
    there = categories != ABSENT
    users, categories, of_list = users[there], categories[there], of_list[there]
    sizes = [np.bincount(users[side], minlength=len(lists)) for side in (of_list, ~of_list)]
    signed = np.where(of_list, 1.0 / np.maximum(sizes[0], 1)[users], -1.0 / np.maximum(sizes[1], 1)[users])
    span = int(categories.max(initial=0)) + 1
    cells, cell = np.unique(users * span + categories, return_inverse=True)
    apart = np.abs(np.bincount(cell, signed, minlength=len(cells)))
    found: NDArray[np.float64] = np.bincount(cells // span, apart, minlength=len(lists)) / 2
    found[(sizes[0] == 0) | (sizes[1] == 0)] = np.nan
    return found


def ltr_recall(lists: NDArray[np.int64], labels: Sequence[Collection[int]], *, cutoff: int) -> float:
    """Return LTRR@cutoff: the mean share of a user's labelled ads that are among the first `cutoff` retrieved.

    Args:
        lists: int64[n, K], ad ids, best first, padded with `ABSENT`.
        labels: n collections of ad ids that other retrieval strategies chose; users without any are left out.
        cutoff: K of Recall@K.
    """
    shares = ltr_recall_by_user(lists, labels, cutoff=cutoff)
    return 0.0 if np.isnan(shares).all() else float(np.nanmean(shares))


def ltr_recall_by_user(
    lists: NDArray[np.int64], labels: Sequence[Collection[int]], *, cutoff: int
) -> NDArray[np.float64]:
    """Return each user's recall of its labelled ads, float64[n]; NaN for a user without labels. See `ltr_recall`."""
    return np.array(
        [
            len(set(row) & set(wanted)) / len(set(wanted)) if wanted else np.nan
            for row, wanted in zip(lists[:, :cutoff].tolist(), labels, strict=True)
        ],
        np.float64,
    )


def mean_ecpm(ecpm: NDArray[np.float64], *, cutoff: int) -> float:
    """Return the mean eCPM of the first `cutoff` ads of a list, averaged over users; 0 without any list.

    Args:
        ecpm: float64[n, K], revenue per 1,000 impressions of each retrieved ad; NaN where a list has ended.
        cutoff: ads that count.
    """
    means = mean_ecpm_by_user(ecpm, cutoff=cutoff)
    return 0.0 if np.isnan(means).all() else float(np.nanmean(means))


def mean_ecpm_by_user(ecpm: NDArray[np.float64], *, cutoff: int) -> NDArray[np.float64]:
    """Return the mean eCPM of the first `cutoff` ads of each list, float64[n]; NaN for an empty one."""
    top = ecpm[:, :cutoff]
    there = ~np.isnan(top)
    counts = there.sum(axis=1)
    return np.where(counts > 0, np.where(there, top, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def dice(first: Collection[int], second: Collection[int]) -> float:
    """Return Eq. 7, 2|A ∩ B| / (|A| + |B|), of two retrieved lists; 1 for two empty ones."""
    a, b = set(first), set(second)
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0
