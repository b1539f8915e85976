"""Candidate sets where nobody logged impressions: a user's next purchase against ads as popular as it is. LEADRE §5.1.

Popularity-matched sampling: a negative is drawn from the ads that had, before that day, as many purchases as the
positive had, within a factor of two (and none, where it had none). Popularity alone then tells nothing.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import numpy as np
import pandas as pd


def purchases_against_negatives(
    purchases: pd.DataFrame, ad_ids: list[int], *, since: datetime, sets: int, negatives: int = 19, seed: int = 0
) -> pd.DataFrame:
    """Return candidate sets: the purchase of a user on a day, and so many ads it did not buy.

    Users have bought something before that day; of several purchases of a day one is drawn, and no other of them is a
    negative.

    Args:
        purchases: `user_id`, `ad_id`, `occurred_at` (whole days), by time.
        ad_ids: the inventory.
        since: purchases before it only count as history.
        sets: at most so many, drawn.
        negatives: in each set (ours).
        seed: of the draws.

    Returns:
        `user_id`, `ad_id`, `event_timestamp`, `label`, by time; a set lies together.
    """
    rng = np.random.default_rng(seed)
    days = purchases["occurred_at"].dt.floor("D")
    later = purchases[days >= pd.Timestamp(since)]
    history = purchases.groupby("user_id")["occurred_at"].min().dt.floor("D")
    pairs = later.assign(day=days)[["user_id", "day"]].drop_duplicates()
    pairs = pairs[history.loc[pairs["user_id"]].to_numpy() < pairs["day"].to_numpy()]
    kept = pairs.iloc[np.sort(rng.permutation(len(pairs))[:sets])]
    wanted = set(zip(kept["user_id"], kept["day"], strict=True))
    counts = dict.fromkeys(ad_ids, 0)
    own: defaultdict[int, set[int]] = defaultdict(set)
    rows: list[tuple[int, int, pd.Timestamp, int]] = []
    for day, of_day in purchases.groupby(days, sort=True):
        bought: defaultdict[int, list[int]] = defaultdict(list)
        for user_id, ad_id in zip(of_day["user_id"].tolist(), of_day["ad_id"].tolist(), strict=True):
            bought[user_id].append(ad_id)
        if any((user_id, day) in wanted for user_id in bought):
            bins = _bins(counts)
            for user_id, ads in bought.items():
                fresh = [ad_id for ad_id in ads if ad_id not in own[user_id]]
                if (user_id, day) in wanted and fresh:
                    positive = fresh[int(rng.integers(len(fresh)))]
                    pool = bins[_bin(counts[positive])]
                    drawn = pool[rng.permutation(len(pool))[: negatives + len(own[user_id]) + len(ads)]].tolist()
                    others = [ad_id for ad_id in drawn if ad_id not in own[user_id] and ad_id not in ads][:negatives]
                    rows += [(user_id, ad_id, day, int(ad_id == positive)) for ad_id in [positive, *others]]
        for user_id, ads in bought.items():
            own[user_id].update(ads)
            for ad_id in ads:
                counts[ad_id] += 1
    return pd.DataFrame(rows, columns=["user_id", "ad_id", "event_timestamp", "label"])


def _bin(count: int) -> int:
    return int(count).bit_length()


def _bins(counts: dict[int, int]) -> dict[int, np.ndarray]:
    bins: defaultdict[int, list[int]] = defaultdict(list)
    for ad_id, count in counts.items():
        bins[_bin(count)].append(ad_id)
    return {place: np.array(ads, np.int64) for place, ads in bins.items()}
