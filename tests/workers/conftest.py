"""A small system: a world in the database, an index, and a release whose engine is the stub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans
from leadre.recipe import encode_recipe
from leadre.settings import Settings
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases
from leadre.synthetic import World, make_world
from tests.chaos.world import RECIPE_OF_TESTS, write_stub_release
from workers.app import app

# Celery reads its configuration once, at the first look at a task; pytest looks while it collects, before any fixture.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("LEADRE_REDIS_URL", "redis://127.0.0.1:1/0")
    patch.setenv("LEADRE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert app.conf.broker_url

USERS = 50


@dataclass(frozen=True, kw_only=True)
class System:
    """What a worker test works on."""

    settings: Settings
    world: World
    index: AdIndex
    environment: dict[str, str]

    def add_release(self, connection: Connection, name: str) -> None:
        """Write and record a release of the same index."""
        folder = self.settings.releases / name
        write_stub_release(folder, index=self.index, recipe=RECIPE_OF_TESTS)
        plain = encode_recipe(RECIPE_OF_TESTS)
        releases.record_release(
            connection, name, index_version=self.index.version, uri=str(folder), recipe=plain, metrics={}
        )


@pytest.fixture
def database_url(applied_database_url: str) -> str:
    """A database with an applied feature store, for `settings`: to clone one takes less than to apply."""
    return applied_database_url


@pytest.fixture
def system(settings: Settings, environment: dict[str, str]) -> System:
    """Database filled, registry applied, release "r1" live."""
    world = make_world(seed=5, ads=96, users=USERS, sessions=2, slate=3, days=20, now=datetime.now(UTC))
    embeddings = np.random.default_rng(5).normal(size=(96, 12)).astype(np.float32)
    quantiser = fit_residual_kmeans(embeddings, levels=2, codes=8, width=6, seed=5)
    index = index_ads(world.ads, embeddings, quantiser, version="i1")
    index.save(settings.indexes / "i1")
    environment = {**environment, "LEADRE_ENGINE": "stub", "LEADRE_LEASE_S": "1.5", "LEADRE_REFRESH_BATCH": "8"}
    made = System(settings=replace(settings, engine="stub"), world=world, index=index, environment=environment)
    database = connect(settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, world.ads)
        catalog.upsert_users(connection, world.profiles, event_at=world.now)
        catalog.upsert_content_items(connection, world.content_items)
        events.upsert_behaviors(connection, world.behaviors, arrived_at=world.now)
        releases.record_index(connection, "i1", uri=str(settings.indexes / "i1"), recipe={}, quality={})
        made.add_release(connection, "r1")
        releases.promote(connection, "r1")
    database.dispose()
    return made


@pytest.fixture
def start(system: System, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `celery -A <app> ...` under the system's environment; whatever still runs at the end is killed."""
    processes = []

    def run(app: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"process-{len(processes)}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "celery", "-A", app, *arguments],
                    env={**system.environment, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
