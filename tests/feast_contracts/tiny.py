"""Pieces of tiny feature stores: one entity, a few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_source import DataSource
from feast.types import Array, Float64, Int64

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
SCORE = Field(name="score", dtype=Float64)
SCORES = Field(name="scores", dtype=Array(Float64))
IDS = Field(name="ids", dtype=Array(Int64))


def frame(rows: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return rows that have a time `at`, with `created` beside it."""
    made = pd.DataFrame(rows)
    return made.assign(created=made["at"])


def source(folder: Path, rows: Mapping[str, Sequence[Any]], *, name: str = "rows") -> FileSource:
    """Write rows as a Parquet file."""
    path = folder / f"{name}.parquet"
    frame(rows).to_parquet(path)
    return FileSource(name=name, path=str(path), timestamp_field="at", created_timestamp_column="created")


def view(
    of: DataSource, *features: Field, name: str = "facts", ttl: timedelta = timedelta(0), entity: Entity = USER
) -> FeatureView:
    """Return a view of a source; by default of one number `score`."""
    return FeatureView(name=name, entities=[entity], schema=[*(features or (SCORE,))], source=of, ttl=ttl)


def online(store: FeatureStore, feature: str, *users: int) -> list[Any]:
    """Return one feature of users, as the online store has it."""
    rows = [{"user_id": user} for user in users]
    return store.get_online_features([feature], rows).to_dict()[feature.partition(":")[2]]


def joined(store: FeatureStore, asked: Mapping[str, Sequence[Any]], *features: str) -> pd.DataFrame:
    """Return the point-in-time join of the asked rows."""
    found: pd.DataFrame = store.get_historical_features(entity_df=pd.DataFrame(asked), features=[*features]).to_df()
    return found
