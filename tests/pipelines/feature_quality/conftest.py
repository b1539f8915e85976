"""A world whose features are well: half a thousand users with summaries, lists and impressions, online as in the log.

Made once; every test gets a copy of the database and finds the online store as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest
import redis
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from leadre.derivation import Lists, pack
from leadre.derivation.user_side import derive
from leadre.pipelines.feature_quality.check import Bounds, FeatureQuality, check_features
from leadre.services import Services
from leadre.settings import Settings
from leadre.store.features import retrieval_log
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from leadre.store.records.partitions import ensure_months
from leadre.store.release.records import promote, record_index, record_release, record_sids

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
USERS, ADS, LISTED = 300, 40, 12
USER_IDS = np.arange(1, USERS + 1)
INDEX, RELEASE = "index-2", "release-2"

# A profile each, a behavior three hours ago, its summary and sequence, an impression a day.
FILL = f"""
INSERT INTO users (user_id, source_id, event_at) SELECT u, u::text, '2026-01-01' FROM generate_series(1, {USERS}) u;
INSERT INTO ads (ad_id, source_id, name, event_at)
SELECT a, a::text, 'ad', '2026-01-01' FROM generate_series(1, {ADS}) a;
INSERT INTO behaviors (behavior_id, user_id, domain, action, item_id, occurred_at, known_at)
SELECT u, u, 'ad', 'click', 1 + u % {ADS}, :at, :at FROM generate_series(1, {USERS}) u;
INSERT INTO impressions (impression_id, user_id, ad_id, occurred_at, ecpm)
SELECT u * 100 + d, u, 1 + (u * 7 + d) % {ADS}, :now - d * interval '1 day' - interval '1 minute', 1
FROM generate_series(1, {USERS}) u, generate_series(0, 7) d;
INSERT INTO interest_summaries (user_id, event_at, newest_at, categories, counts)
SELECT u, :at, :at, '{{sofas}}', '{{1}}' FROM generate_series(1, {USERS}) u;
INSERT INTO behavior_sequences
(user_id, domain, event_at, newest_at, item_ids, actions, titles, occurred_at_s, ordinals)
SELECT u, domain, :at, :at, ARRAY[1 + u % {ADS}], '{{click}}', '{{ad}}', '{{0}}', '{{0}}'
FROM generate_series(1, {USERS}) u, unnest('{{ad,content}}'::text[]) domain;
INSERT INTO user_state (user_id, written, newest_behavior_at, summarized, changed_at)
SELECT u, 9, :at, 9, :at FROM generate_series(1, {USERS}) u
ON CONFLICT (user_id) DO UPDATE SET newest_behavior_at = excluded.newest_behavior_at, changed_at = excluded.changed_at
"""


def make_lists(
    user_ids: NDArray[np.int64], *, at: datetime, spread: float = 1.0, ads: int = LISTED, index: str = INDEX
) -> Lists:
    """Derive lists of random scores, whose probabilities are the more unequal the larger `spread` is."""
    rng = np.random.default_rng([int(at.timestamp()), len(user_ids)])
    total = len(user_ids) * ads
    chosen = np.argsort(rng.random((len(user_ids), ADS)), axis=1)[:, :ads].ravel()
    return derive(
        counts=np.full(len(user_ids), ads),
        ad_ids=chosen + 1,
        log_probabilities=-np.sort(spread * rng.exponential(size=(len(user_ids), ads)), axis=1).ravel(),
        codes=np.stack([chosen % 4, chosen // 4, np.zeros(total, int)], axis=1),
        first_categories=chosen % 3,
        second_categories=chosen % 3,
        category_names=("", "toys", "tea"),
        advertiser_ids=chosen % 5,
        embeddings=np.stack([np.cos(chosen), np.sin(chosen)], axis=1),
        ecpms=rng.random(total),
        generated_at_s=at.timestamp(),
        behavior_at_s=(at - HOUR).timestamp(),
        release=RELEASE,
        index_version=index,
    )


def append_lists(connection: Connection, user_ids: NDArray[np.int64], lists: Lists) -> None:
    """Write lists to the retrieval log."""
    retrieval_log.append(connection, user_ids, lists, pack(lists))


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """The world's database, to copy; a feature store over another copy; what was online."""

    database: str
    features: FeatureClient
    online: dict[bytes, dict[bytes, bytes]]


@dataclass(frozen=True, kw_only=True)
class World:
    """A copy of the healthy world, to spoil."""

    database: Engine
    features: FeatureClient
    online: redis.Redis

    def do(self, statement: str, **values: object) -> None:
        """Run SQL."""
        with transaction(self.database) as connection:
            connection.execute(text(statement), values)

    def check(self, *, now: datetime = NOW, training_set: Path | None = None, **bounds: Any) -> FeatureQuality:
        """Measure everything, on fewer rows than usual."""
        bounded = Bounds(**{"min_rows": 100, **bounds})
        return check_features(self.database, self.features.store, now=now, bounds=bounded, training_set=training_set)


@pytest.fixture(scope="session")
def healthy(services: Services, applied_database: str) -> Iterator[Healthy]:
    _administer(services, f"CREATE DATABASE healthy TEMPLATE {applied_database} STRATEGY file_copy")
    settings = _settings(services, "healthy")
    database = connect(settings.database_url)
    number = np.arange(ADS)
    with transaction(database) as connection:
        for table in ("interest_summaries", "behavior_sequences"):
            ensure_months(connection, table, [NOW])
        connection.execute(text(FILL), {"now": NOW, "at": NOW - 3 * HOUR})
        for days in range(9):  # one list a day and user, for a week of impressions and the day
            append_lists(connection, USER_IDS, make_lists(USER_IDS, at=NOW - days * DAY - HOUR))
        record_index(connection, INDEX, uri="", recipe={}, quality={})
        record_sids(
            connection,
            INDEX,
            ad_ids=number + 1,
            sids=[f"<a_{n % 4}, b_{n // 4}, e_0>" for n in number],
            codes=np.stack([number % 4, number // 4, np.zeros(ADS, int)], axis=1),
            embeddings=np.stack([np.cos(number), np.sin(number)], axis=1).astype(np.float32),
            first_categories=["toys"] * ADS,
            second_categories=[""] * ADS,
            advertiser_ids=np.ones(ADS, np.int64),
            event_at=NOW - 60 * DAY,
        )
        record_release(connection, RELEASE, index_version=INDEX, uri="", recipe={}, metrics={})
        promote(connection, RELEASE)
        connection.execute(text("UPDATE releases SET promoted_at = :at"), {"at": NOW - 50 * DAY})
    database.dispose()
    _administer(services, "CREATE DATABASE healthy_store TEMPLATE healthy STRATEGY file_copy")
    settings = _settings(services, "healthy_store")
    with redis.Redis.from_url(services.redis_url) as online:
        online.flushall()
        features = FeatureClient(settings.feature_repo, settings.feast_environment())
        features.store.materialize(start_date=datetime(2025, 1, 1, tzinfo=UTC), end_date=NOW)
        kept = {key: online.hgetall(key) for key in online.scan_iter()}
    yield Healthy(database="healthy", features=features, online=kept)
    features.close()
    for name in ("healthy", "healthy_store"):
        _administer(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def world(services: Services, healthy: Healthy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    _administer(services, f"CREATE DATABASE spoilt TEMPLATE {healthy.database} STRATEGY file_copy")
    settings = _settings(services, "spoilt")
    monkeypatch.setenv("LEADRE_HOME", str(tmp_path))
    monkeypatch.setenv("LEADRE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("LEADRE_REDIS_URL", settings.redis_url)
    monkeypatch.setenv("LEADRE_FEATURE_REPO", str(settings.feature_repo))
    database = connect(settings.database_url)
    try:
        with redis.Redis.from_url(services.redis_url) as online:
            online.flushall()
            with online.pipeline(transaction=False) as pipeline:
                for key, fields in healthy.online.items():
                    pipeline.hset(key, mapping=fields)
                pipeline.execute()
            yield World(database=database, features=healthy.features, online=online)
    finally:
        database.dispose()
        _administer(services, "DROP DATABASE spoilt WITH (FORCE)")


def _settings(services: Services, database: str) -> Settings:
    return Settings(
        home=ROOT,
        database_url=f"{services.database_url.rpartition('/')[0]}/{database}",
        redis_url=services.redis_url,
        feature_repo=ROOT / "feature_repo",
    )


def _administer(services: Services, statement: str) -> None:
    connection = psycopg2.connect(services.database_url)
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()
