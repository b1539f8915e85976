"""Fixtures of the store's tests: a client of an applied feature store, and a small index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feast import FeatureStore, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore
from sqlalchemy import Connection, Engine

from leadre.domain.retrieval import Beam, RetrievalList
from leadre.indexing.ad_index import AdIndex
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction
from leadre.store.records.tables import ads
from leadre.store.release.records import promote, record_index, record_release, record_sids

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROMOTED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def features(applied: Settings) -> Iterator[FeatureClient]:
    """A client of the applied feature store."""
    client = FeatureClient(applied.feature_repo, applied.feast_environment())
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def database(applied: Settings) -> Iterator[Engine]:
    """Connections to the database of `applied`."""
    engine = connect(applied.database_url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture
def stock(features: FeatureClient) -> FeatureStore:
    """The same feature store, with the Redis store that Feast brings instead of ours: what a stock SDK is."""
    config = features.store.config
    values = config.model_dump(by_alias=True, exclude_none=True, exclude={"repo_path"})
    values["online_store"] = {"type": "redis", "connection_string": config.online_store.connection_string}
    made = FeatureStore(config=RepoConfig(**values, repo_path=config.repo_path))
    assert type(made._get_provider().online_store) is RedisOnlineStore
    return made


@pytest.fixture(scope="session")
def index() -> AdIndex:
    """Thirty ads 100..129 in 3 codes of 4, 3 and 5, embeddings of width 2."""
    rng = np.random.default_rng(5)
    number = np.arange(30)
    return AdIndex.assemble(
        version="index-1",
        ad_ids=(number + 100).astype(np.int64),
        codes=np.stack([number % 4, number // 4 % 3, number // 12], axis=1).astype(np.int32),
        first_categories=[f"first {n % 3}" for n in number],
        second_categories=[f"second {n % 7}" for n in number],
        advertiser_ids=(number % 6).astype(np.int64),
        embeddings=rng.normal(size=(30, 2)).astype(np.float32),
        code_counts=(4, 3, 5),
        quality={},
    )


@pytest.fixture(scope="session")
def make_list(index: AdIndex) -> Callable[..., RetrievalList]:
    """Make lists of `index`: user, ads best first, and when."""

    def make(user_id: int, *ad_ids: int, at: datetime = NOW, step: float = 0.5) -> RetrievalList:
        beams = [
            Beam(sid=index.sid(ad_id), ad_id=ad_id, log_probability=-1 - step * place)
            for place, ad_id in enumerate(ad_ids)
        ]
        return RetrievalList(
            user_id=user_id,
            release="release-1",
            index_version=index.version,
            generated_at=at,
            event_at=at - timedelta(hours=1),
            beams=tuple(beams),
        )

    return make


@pytest.fixture
def promoted(database: Engine, index: AdIndex) -> None:
    """The index and its ads in the database, its release live; all true since `PROMOTED`."""
    everything = np.arange(len(index))
    first, second = index.categories_at(everything)
    with transaction(database) as connection:
        rows = zip(index.ad_ids.tolist(), first, second, index.advertiser_ids.tolist(), strict=True)
        values = [
            {
                "ad_id": ad_id,
                "source_id": str(ad_id),
                "name": f"name of {ad_id}",
                "first_category": first_category,
                "second_category": second_category,
                "advertiser_id": advertiser_id,
                "bid": ad_id / 100,
                "event_at": PROMOTED,
            }
            for ad_id, first_category, second_category, advertiser_id in rows
        ]
        connection.execute(ads.insert(), values)
        record_index(connection, index.version, uri="index", recipe={}, quality={})
        record_sids(
            connection,
            index.version,
            ad_ids=index.ad_ids,
            sids=[str(index.sid_at(row)) for row in everything],
            codes=index.codes,
            embeddings=index.embeddings,
            first_categories=first,
            second_categories=second,
            advertiser_ids=index.advertiser_ids,
            event_at=PROMOTED,
        )
        record_release(connection, "release-1", index_version=index.version, uri="", recipe={}, metrics={})
        promote(connection, "release-1")
        connection.exec_driver_sql("UPDATE releases SET promoted_at = '2026-01-01 00:00:00+00'")


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """An open transaction on a migrated database without a feature store; undone after the test."""
    engine = connect(database_url)
    try:
        with engine.connect() as open_connection:
            yield open_connection
    finally:
        engine.dispose()
