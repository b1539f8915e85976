"""A live release over a small world, a database and a feature store of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from sqlalchemy import Engine as Database

from leadre.domain.users import Context
from leadre.pipelines.refresh import LiveRetriever
from leadre.retrieval.retriever import Retriever
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect
from tests.live_world import LiveWorld, make_live_world


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Whom a test asks about."""

    live: LiveWorld
    database: Database
    retriever: Retriever
    contexts: list[Context]
    now: datetime


@pytest.fixture
def asked(applied: Settings) -> Iterator[Asked]:
    live = make_live_world(applied)
    now = live.world.now
    database = connect(applied.database_url)
    features = FeatureClient(applied.feature_repo, applied.feast_environment())
    retrievers = LiveRetriever(applied, database=database, features=features)
    retrievers.refresh(live.user_ids, now=now)
    yield Asked(
        live=live,
        database=database,
        retriever=retrievers.current(),
        contexts=features.contexts(live.user_ids, now=now),
        now=now,
    )
    features.close()
    database.dispose()
