"""Worlds: three data sets, each imported into a home of its own, its rows and their lists of the past. LEADRE §5.1.

What is there already is not made again. Every world ends as the same thing: rows of (user, ad, time, label).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace
from sqlalchemy import text

from examples.ranker.candidates import purchases_against_negatives
from examples.ranker.lists import DAY, Making, Ready, Say, connected, with_lists
from leadre import services
from leadre.pipelines.summarize import summarize
from leadre.recipe import EvaluationRecipe, Recipe, SftRecipe, load_recipe
from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.importers.amazon import import_amazon
from leadre.store.importers.synthetic import import_world
from leadre.store.importers.taobao.folder import import_taobao
from leadre.store.records.database import migrate, transaction
from leadre.synthetic import World, make_world

ROOT = Path(__file__).parents[2]
SYNTHETIC_DAYS = 35
"""Of the made-up world's 85 days: the rows (ours)."""
BEAUTY_CUT, BEAUTY_END = datetime(2014, 5, 1, tzinfo=UTC), datetime(2014, 8, 1, tzinfo=UTC)
"""The release has read no purchase from the cut on; 84 days of purchases follow (ours)."""
TAOBAO_CUT, TAOBAO_END = datetime(2017, 5, 8, tzinfo=UTC), datetime(2017, 5, 14, tzinfo=UTC)
"""Of its eight days of impressions the release has two; the shop's behaviors begin on 22 April."""
HOUR = timedelta(hours=1)


def open_home(home: Path) -> Settings:
    """Start the embedded servers of a home, bring the schema and Feast's registry up to date."""
    servers = services.up(home)
    settings = Settings(
        home=home,
        database_url=servers.database_url,
        redis_url=servers.redis_url,
        feature_repo=ROOT / "feature_repo",
        engine="auto",
    )
    migrate(settings.database_url)
    os.environ.update(settings.feast_environment())
    run_feast(settings.feature_repo, "apply")
    return settings


def synthetic(settings: Settings, *, users: int, seed: int, release: str | None, every: timedelta, say: Say) -> Ready:
    """The made-up world of `leadre demo`: what was shown in its last days; two releases, each of what was before."""
    world = make_world(seed=seed, users=users)
    days = timedelta(days=SYNTHETIC_DAYS)
    making = Making(release=release, recipe=demo_recipe(), retrain=days / 2, every=every, say=say)
    return made_up(settings, world, since=world.now - days, making=making)


def made_up(settings: Settings, world: World, *, since: datetime, making: Making) -> Ready:
    """Import a made-up world; its rows are the impressions from an instant on."""
    _import(settings, lambda: import_world(world, database_url=settings.database_url), now=world.now)
    return with_lists(settings, _impressions(settings, since, world.now), making)


def beauty(settings: Settings, folder: Path, *, sets: int, seed: int, release: str | None, say: Say) -> Ready:
    """Amazon Beauty: purchases after the cut against sampled negatives, lists by a release that ends before it."""
    url, now = settings.database_url, BEAUTY_END
    _import(settings, lambda: import_amazon(folder, database_url=url, now=now), now=now)
    with connected(settings) as database, transaction(database) as connection:
        query = "SELECT user_id, item_id AS ad_id, occurred_at FROM behaviors ORDER BY occurred_at, user_id, ordinal"
        purchases = pd.read_sql(text(query), connection)
        ad_ids = [int(ad_id) for ad_id in connection.scalars(text("SELECT ad_id FROM ads ORDER BY 1"))]
    purchases["occurred_at"] = pd.to_datetime(purchases["occurred_at"], utc=True)
    rows = purchases_against_negatives(purchases, ad_ids, since=BEAUTY_CUT, sets=sets, seed=seed)
    making = Making(release=release, recipe=beauty_recipe(), retrain=1000 * DAY, every=DAY, say=say)
    return with_lists(settings, rows, making)


def taobao(settings: Settings, folder: Path, *, users: int, release: str | None, every: timedelta, say: Say) -> Ready:
    """The public Taobao display-ad log: what was shown in its last six days."""

    def load() -> None:
        import_taobao(
            folder,
            database_url=settings.database_url,
            now=TAOBAO_END,
            rejected=settings.home / "rejected.csv",
            limit_users=users,
            on_bad_row="skip",
        )

    _import(settings, load, now=TAOBAO_END)
    making = Making(release=release, recipe=taobao_recipe(), retrain=7 * DAY, every=every, say=say)
    return with_lists(settings, _impressions(settings, TAOBAO_CUT, TAOBAO_END), making)


def demo_recipe() -> Recipe:
    """Return the demo's recipe without what costs time and moves no list much: DPO, half of the alignment (ours)."""
    recipe = load_recipe(ROOT / "recipes/demo.toml")
    return replace(
        recipe,
        name="ranker-demo",
        index=replace(recipe.index, quantiser="residual_kmeans"),
        sft=replace(recipe.sft, epochs=(3.0, 0.1, 3.0)),
        dpo=replace(recipe.dpo, enabled=False),
        evaluation=EvaluationRecipe(max_users=300, baselines=("popularity",)),
    )


def taobao_recipe() -> Recipe:
    """Return the demo's recipe for ads that have numbers for names: a hashed encoder, and room for 850,000 of them."""
    recipe = demo_recipe()
    index = replace(recipe.index, encoder="hashed", levels=4, codes=256)
    return replace(recipe, name="ranker-taobao", index=index)


def beauty_recipe() -> Recipe:
    """Return what is trained before the cut on Beauty: small, so that it is done in minutes (every change is ours)."""
    recipe = load_recipe(ROOT / "recipes/amazon_beauty.toml")
    sasrec = replace(recipe.collaborative.sasrec, width=64, layers=1, epochs=12, patience=2, batch_size=256)
    return replace(
        recipe,
        name="beauty",
        index=replace(recipe.index, signal="text"),
        model=replace(recipe.model, hidden_size=128, layers=2, feed_forward=384),
        sft=SftRecipe(
            curriculum=(("main",),),
            epochs=(1.0,),
            learning_rate=2e-3,
            weight_decay=0.1,
            batch_size=64,
            device_batch_size=64,
            level_loss=True,
        ),
        collaborative=replace(recipe.collaborative, enabled=True, sasrec=sasrec, calibration_users=300),
        evaluation=EvaluationRecipe(max_users=300, baselines=("popularity", "co_visitation")),
    )


def _import(settings: Settings, load: Callable[[], Any], *, now: datetime) -> None:
    """Import a data set, unless the home has one, and summarize it."""
    with connected(settings) as database, transaction(database) as connection:
        there = connection.scalar(text("SELECT EXISTS (SELECT FROM ads)"))
    if not there:
        load()
        summarize(settings.database_url, now=now)


def _impressions(settings: Settings, since: datetime, until: datetime) -> pd.DataFrame:
    query = text("""
        SELECT user_id, ad_id, occurred_at AS event_timestamp, clicked::integer AS label FROM impressions
        WHERE occurred_at >= :since AND occurred_at < :until ORDER BY occurred_at, impression_id
    """)
    with connected(settings) as database, transaction(database) as connection:
        rows = pd.read_sql(query, connection, params={"since": since, "until": until})
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    return rows.astype({"label": np.int64})
