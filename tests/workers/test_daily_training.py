"""The daily update: new ads join the live index, the live model learns on, and a guard decides on promotion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.build_index import build_index
from leadre.pipelines.release import make_release
from leadre.recipe import DpoRecipe, EvaluationRecipe, IndexRecipe, ModelRecipe, PromptRecipe, Recipe, SftRecipe
from leadre.settings import Settings
from leadre.store import catalog
from leadre.store.database import connect, transaction
from leadre.store.importers.synthetic import import_world
from leadre.store.releases import list_releases, live_release, promote
from leadre.synthetic import World, make_world
from leadre.training.release_folder import open_release
from workers.resources import resources
from workers.training import train_daily

RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16),
    prompt=PromptRecipe(template="one_pass", budget_tokens=300),
    model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=700),
    sft=SftRecipe(curriculum=(("main",),), epochs=(2.0,), learning_rate=1e-3, batch_size=16, device_batch_size=16),
    dpo=DpoRecipe(enabled=False),
    evaluation=EvaluationRecipe(cutoffs=(1, 8)),
)


@pytest.fixture
def world(settings: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A made-up world with a live release "first", and this process under the test's settings."""
    for name, value in environment.items():
        if name.startswith("LEADRE_"):
            monkeypatch.setenv(name, value)
    resources.cache_clear()
    now = datetime.now(UTC)
    made = make_world(seed=6, ads=97, users=40, sessions=5, slate=4, days=20, now=now)
    import_world(made, database_url=settings.database_url)
    url = settings.database_url
    index = build_index(database_url=url, indexes=settings.indexes, recipe=RECIPE.index, now=now)
    make_release(database_url=url, releases=settings.releases, index=index, recipe=RECIPE, now=now, name="first")
    _promote(settings, "first")
    yield made
    resources().database.dispose()
    resources.cache_clear()


def _promote(settings: Settings, name: str) -> None:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        promote(connection, name)
    database.dispose()


def test_new_ads_join_and_the_new_release_goes_on_from_the_live_one(world: World, settings: Settings) -> None:
    new = replace(world.ads[0], ad_id=500, source_id="ad-500", name="Quite Another Sofa")
    database = connect(settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, [new])
    train_daily.run()
    with transaction(database) as connection:
        names = [row.release for row in list_releases(connection)]
        live = live_release(connection)
    database.dispose()
    assert len(names) == 2
    made = next(name for name in names if name != "first")
    assert live is not None
    index = AdIndex.load(settings.indexes / live.index_version)
    assert index.rows(np.array([500])).tolist() != [-1]
    assert open_release(settings.releases / made).facts["index_version"] == index.version


def test_a_release_whose_hit_ratio_falls_is_recorded_and_not_promoted(world: World, settings: Settings) -> None:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        live = live_release(connection)
        assert live is not None
        flattering = msgspec.json.decode(msgspec.json.encode(live.metrics))
        flattering["metrics"]["leadre"]["canonical"]["HR@8"]["mean"] = 1.0
        _rewrite_metrics(connection, live.release, flattering)
    train_daily.run()
    with transaction(database) as connection:
        still = live_release(connection)
        assert len(list_releases(connection)) == 2
    database.dispose()
    assert still is not None
    assert still.release == "first"


def _rewrite_metrics(connection, release: str, metrics: object) -> None:
    from leadre.store.tables import releases

    connection.execute(releases.update().where(releases.c.release == release).values(metrics=metrics))
