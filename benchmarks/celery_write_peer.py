"""The peer of a drained and written list: one Celery task a user that does Feast's own online write.

LEADRE §4.4.1. The feature store is opened before the first task, its registry is a file, and the frame of a user's list
is at hand: a task is `write_to_online_store` of one row.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pandas as pd
import redis
from celery import signals
from celery_peer import app
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Bytes

FOLDER, RECORD_BYTES = "LEADRE_BENCH_FOLDER", 1_100
_opened: list[FeatureStore] = []


def make_store(folder: Path, redis_url: str) -> FeatureStore:
    """Return a feature store whose one view holds a user's list, over Feast's own Redis store."""
    where = redis_url.rpartition("@")[2].partition("/")[0]
    password = redis_url.partition("//:")[2].rpartition("@")[0]
    none = folder / "none.parquet"
    pd.DataFrame({"user_id": [0], "event_at": [pd.Timestamp.now("UTC")]}).to_parquet(none)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    pushed = PushSource(name="lists", batch_source=FileSource(name="none", path=str(none), timestamp_field="event_at"))
    view = FeatureView(
        name="retrieved_ads",
        entities=[user],
        schema=[Field(name="retrieved_list", dtype=Bytes)],
        source=pushed,
        ttl=timedelta(days=7),
    )
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": f"{where},password={password}"},
            entity_key_serialization_version=3,
        )
    )
    store.apply([user, pushed, view])
    return store


@signals.worker_init.connect
def open_store(**_: object) -> None:
    """Open the feature store before the first task."""
    if FOLDER in os.environ:
        _opened.append(make_store(Path(os.environ[FOLDER]), os.environ["LEADRE_REDIS_URL"]))


@app.task(name="peer.write")
def write(user_id: int, announced: str) -> None:
    """Write a user's list; then say so under `announced`, unless that is empty."""
    now = pd.Timestamp.now("UTC").as_unit("ns")
    frame = pd.DataFrame({"user_id": [user_id], "retrieved_list": [bytes(RECORD_BYTES)], "event_at": [now]})
    _opened[0].write_to_online_store("retrieved_ads", df=frame)
    if announced:
        with redis.Redis.from_url(app.conf.broker_url) as client:
            client.rpush(announced, user_id)
