"""The walk: from features of the past, which a ranker is trained on, to online ones, which it serves on. LEADRE §5.3.

Read it from top to bottom: this is all that a ranking service needs of LEADRE. Between the two sides nothing is
computed twice: the formulas are the same function, so that the skew is zero, which `skew` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leadre.derivation import NEUTRAL, USER_NEUTRAL
from leadre.store.features.client import FeatureClient
from leadre.store.features.ranking import RankingFeatures

ITEM_SIDE = tuple(NEUTRAL)
"""Match scores of a target ad with its user's list: hit, rank, probability, prefix masses, cosines, …"""
USER_SIDE = ("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm")
"""Numbers of the user's list as a whole."""
EMBEDDED = 8
"""The first numbers of the list's mean embedding are user-side features as well (ours)."""
NAMES = (*USER_SIDE, *(f"mean_embedding_{n}" for n in range(EMBEDDED)), *ITEM_SIDE)
"""What the ranker takes of `ranker_features_v1`."""


# 1. The past. Lists of the past are in the retrieval log (`leadre dataset lists`). Every training row gets the features
#    that it would have had at its own time; Feast's get_historical_features joins what was stored.


def historical(client: FeatureClient, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the features of rows (`user_id`, `ad_id`, `event_timestamp`, …), each as of its own time.

    `leadre dataset ranking` writes the same values as Parquet, a day each, for sets that do not fit into memory.
    """
    joined = client.point_in_time(rows[["user_id", "ad_id", "event_timestamp"]])
    return columns(joined)


def columns(features: Mapping[str, Any]) -> pd.DataFrame:
    """Return the ranker's columns from features by name: numbers as they are, the embedding taken apart."""
    rows = len(features["hit"])
    embedded = np.zeros((rows, EMBEDDED))
    for row, value in enumerate(features["mean_embedding"]):
        part = np.asarray(value if value is not None else [], np.float64)[:EMBEDDED]
        embedded[row, : len(part)] = part
    found = {name: np.asarray(features[name], np.float64) for name in (*USER_SIDE, *ITEM_SIDE)}
    return pd.DataFrame({**found, **{f"mean_embedding_{n}": embedded[:, n] for n in range(EMBEDDED)}})[list(NAMES)]


# 2. Online. `leadre materialize` brings lists and ads to the online store; nearline workers then keep lists fresh. A
#    ranking service asks for one user and its candidates, at the time of the request.


def go_online(client: FeatureClient, *, at: datetime) -> None:
    """Bring the online store to what was known at an instant."""
    client.materialize(now=at, views=["retrieved_ads", "ad_index", "ad_features"], full=True)


def online(ranking: RankingFeatures, user_id: int, ad_ids: list[int], *, now: datetime) -> pd.DataFrame:
    """Return the ranker's columns of a user's candidates, within 20 ms: what a ranking service calls."""
    rows = ranking.read([user_id], [ad_ids], now=now)
    return columns(rows.to_numpy(("mean_embedding", *USER_SIDE, *ITEM_SIDE)))


def online_by_feast(client: FeatureClient, user_id: int, ad_ids: list[int], *, now: datetime) -> dict[str, list[Any]]:
    """Return every feature of the service by Feast's own get_online_features: the same values, in any language."""
    asked = [{"user_id": user_id, "ad_id": ad_id, "request_time_s": now.timestamp()} for ad_id in ad_ids]
    service = client.store.get_feature_service("ranker_features_v1")
    found: dict[str, list[Any]] = client.store.get_online_features(features=service, entity_rows=asked).to_dict()
    return found


# 3. Skew. The same rows from both sides, at one instant: how many values differ?


def skew(
    client: FeatureClient, ranking: RankingFeatures, candidates: Mapping[int, list[int]], *, at: datetime
) -> dict[str, int]:
    """Compare every feature of every (user, ad), offline and online, bit for bit.

    Returns:
        `rows`, `values` that were compared, and how many differ: `feast` (get_online_features) and `in_process`
        (RankingFeatures) from the point-in-time join; `neutral` rows have no list.
    """
    rows = pd.DataFrame(
        [(user_id, ad_id, at) for user_id, ad_ids in candidates.items() for ad_id in ad_ids],
        columns=["user_id", "ad_id", "event_timestamp"],
    )
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    offline = client.point_in_time(rows)
    names = [name for name in offline.columns if name not in ("user_id", "ad_id", "event_timestamp")]
    by_feast: dict[str, list[Any]] = {name: [] for name in names}
    for user_id, ad_ids in candidates.items():
        found = online_by_feast(client, user_id, ad_ids, now=at)
        for name in names:
            by_feast[name] += found[name]
    read = ranking.read(list(candidates), list(candidates.values()), now=at)
    in_process = {name: read[name] for name in (*USER_NEUTRAL, *NEUTRAL)}
    return {
        "rows": len(rows),
        "values": len(rows) * len(names),
        "feast": sum(_different(offline[name], by_feast[name]) for name in names),
        "in_process": sum(_different(offline[name], in_process[name]) for name in in_process),
        "neutral": int((offline["retrieved_count"] == 0).sum()),
    }


def _different(ours: Any, theirs: Any) -> int:
    """Return how many values are not the same: numbers by their bits, texts and lists by what they hold."""
    pairs = zip(list(ours), list(theirs), strict=True)
    return sum(not np.array_equal(_plain(a), _plain(b)) for a, b in pairs)


def _plain(value: Any) -> NDArray[Any]:
    return np.asarray([] if value is None else value)
