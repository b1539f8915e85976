"""A system that is well: a filled catalog, a live release on disk, Redis that keeps what it acknowledges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from redis import Redis
from sqlalchemy import Connection, text

from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans
from leadre.recipe import encode_recipe
from leadre.settings import Settings
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases
from leadre.synthetic import make_world
from tests.chaos.world import RECIPE_OF_TESTS, write_stub_release

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """The test's Redis, kept as production keeps it; its configuration is as it was afterwards."""
    with Redis.from_url(redis_url) as opened:
        before = {name: opened.config_get(name)[name] for name in ("appendonly", "maxmemory-policy", "maxmemory")}
        opened.config_set("appendonly", "yes")
        yield opened
        for name, value in before.items():
            opened.config_set(name, value)


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    database = connect(settings.database_url)
    with transaction(database) as opened:
        yield opened
    database.dispose()


@pytest.fixture
def well(applied: Settings) -> Settings:
    """Settings of a system without a fault."""
    settings = replace(applied, engine="stub")
    world = make_world(seed=5, ads=96, users=20, sessions=2, slate=3, days=20, now=NOW)
    embeddings = np.random.default_rng(5).normal(size=(96, 12)).astype(np.float32)
    index = index_ads(
        world.ads, embeddings, fit_residual_kmeans(embeddings, levels=2, codes=8, width=6, seed=5), version="i1"
    )
    index.save(settings.indexes / "i1")
    write_stub_release(settings.releases / "r1", index=index, recipe=RECIPE_OF_TESTS)
    database = connect(settings.database_url)
    with transaction(database) as opened:
        catalog.upsert_ads(opened, world.ads)
        catalog.upsert_users(opened, world.profiles, event_at=world.now)
        events.upsert_behaviors(opened, world.behaviors, arrived_at=world.now)
        releases.record_index(opened, "i1", uri=str(settings.indexes / "i1"), recipe={}, quality={})
        releases.record_release(
            opened,
            "r1",
            index_version="i1",
            uri=str(settings.releases / "r1"),
            recipe=encode_recipe(RECIPE_OF_TESTS),
            metrics={},
        )
        releases.promote(opened, "r1")
        opened.execute(
            text("""
            INSERT INTO materializations (view, written_from, waiting_from, until, next_written_from,
                                          next_waiting_from, entities, finished_at)
            VALUES ('user_profile', 0, 0, now(), 0, 0, 0, now())
        """)
        )
    database.dispose()
    return settings
