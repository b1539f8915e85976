"""The daily update: new ads join the live index, the live model learns on, and a guard decides on promotion."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.domain.ads import Ad
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.index.build import build_index
from leadre.pipelines.learning import release as release_pipeline
from leadre.pipelines.learning.measures import Evaluation
from leadre.pipelines.learning.release import make_release
from leadre.recipe import DpoRecipe, EvaluationRecipe, IndexRecipe, ModelRecipe, PromptRecipe, Recipe, SftRecipe
from leadre.settings import Settings
from leadre.store.importers.synthetic import import_world
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release import guard
from leadre.store.release.records import ReleaseRow, list_releases, promote, rollback
from leadre.synthetic import World, make_world
from leadre.training.learner.release_folder import open_release
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


def _at(world: World, number: int) -> datetime:
    """The n-th instant after the live release was trained."""
    return world.now + timedelta(milliseconds=1 + number)


def _add(settings: Settings, *, ads: Sequence[Ad] = (), behaviors: Sequence[Behavior] = ()) -> None:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        catalog.upsert_ads(connection, ads)
        events.upsert_behaviors(connection, behaviors, arrived_at=datetime.now(UTC))
    database.dispose()


def _clicks(world: World, user_id: int, ad_ids: Sequence[int]) -> list[Behavior]:
    click = partial(Behavior, user_id=user_id, domain=Domain.AD, action=Action.CLICK)
    return [click(item_id=ad_id, occurred_at=_at(world, number)) for number, ad_id in enumerate(ad_ids)]


def _releases(settings: Settings) -> dict[str, ReleaseRow]:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        rows = {row.release: row for row in list_releases(connection)}
    database.dispose()
    return rows


def test_new_ads_join_and_what_users_did_with_them_is_learned_and_measured(world: World, settings: Settings) -> None:
    new = [
        replace(world.ads[0], ad_id=number, source_id=str(number), name=f"Quite Another Sofa {number}")
        for number in (500, 501)
    ]
    clicked = Counter(row.item_id for row in world.behaviors if row.positive and row.domain is Domain.AD)
    known = [ad_id for ad_id, _ in clicked.most_common(3)]
    learner, asked = _clicks(world, 9_000, [500, *known]), _clicks(world, 9_001, [*known, 501])
    _add(settings, ads=new, behaviors=[*learner, *asked])
    before = _releases(settings)["first"]
    train_daily.run()
    rows = _releases(settings)
    (made,) = (row for name, row in rows.items() if name != "first")
    index = AdIndex.load(settings.indexes / made.index_version)
    assert (index.rows(np.array([500, 501])) >= 0).all()
    folder = open_release(settings.releases / made.release)
    assert folder.facts["index_version"] == index.version == before.index_version
    # These two alone did something since. Of four clicks two are learned, ad 500 among them; ad 501 is asked for.
    training = json.loads((settings.releases / made.release / "metrics.json").read_text())["training"]
    assert training["main"]["examples"] == 2
    assert training["main"]["supervised_tokens"] == 2 * 2 * len(index.code_counts)
    assert made.metrics["users"] == before.metrics["users"] + 2
    cold = [row.metrics["slices"].get("cold_ads", {"users": 0})["users"] for row in (before, made)]
    assert cold[1] == cold[0] + 1


def test_a_day_without_new_behaviors_trains_nothing(
    world: World, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    train_daily.run()
    assert list(_releases(settings)) == ["first"]
    (record,) = (record for record in caplog.records if record.message == "not_training")
    assert "nothing to learn" in record.reason  # type: ignore[attr-defined]


def test_a_release_that_falls_behind_the_live_one_of_today_is_kept_back_with_the_reason(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flatter(folder: Path, **arguments: Any) -> Evaluation:
        measured = evaluate_release(folder, **arguments)
        lists = {**measured.lists, "leadre": replace(measured.lists["leadre"], mean_ecpm=1e9)}
        return replace(measured, lists=lists) if folder.name == "first" else measured

    evaluate_release = release_pipeline.evaluate_release
    monkeypatch.setattr(release_pipeline, "evaluate_release", flatter)
    user = world.behaviors[0].user_id
    _add(settings, behaviors=_clicks(world, user, [world.ads[5].ad_id]))
    train_daily.run()
    rows = _releases(settings)
    (made,) = (row for name, row in rows.items() if name != "first")
    assert (rows["first"].status, made.status) == ("live", "candidate")
    reason = made.metrics["kept_back"]
    assert "lists.leadre.mean_ecpm" in reason
    assert "live has 1e+09" in reason
    assert [record.reason for record in caplog.records if record.message == "release_not_promoted"] == [reason]  # type: ignore[attr-defined]


def test_a_release_that_holds_its_figures_goes_live_and_can_be_rolled_back(
    world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HIT_RATIO_DROP", 0.99)  # some users' hits are noise, not what this is about
    monkeypatch.setattr(guard, "LIST_DROP", 0.99)
    user = world.behaviors[0].user_id
    _add(settings, behaviors=_clicks(world, user, [world.ads[5].ad_id]))
    train_daily.run()
    assert sorted(row.status for row in _releases(settings).values()) == ["live", "retired"]
    assert _releases(settings)["first"].status == "retired"
    database = connect(settings.database_url)
    with transaction(database) as connection:
        assert rollback(connection).release == "first"
    database.dispose()
    assert _releases(settings)["first"].status == "live"
