"""Worlds: three data sets, each imported, indexed, and with lists of the past by releases that had not seen the labels.

LEADRE §5.3. What is there already is not made again. Every world ends as the same thing: rows of (user, ad, time,
label), point-in-time features beside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace as change
from sqlalchemy import Engine, text

from examples.ranker.candidates import purchases_against_negatives
from leadre import services
from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, plan
from leadre.pipelines.dataset.past import PastRelease
from leadre.pipelines.dataset.rolling import rolling_releases
from leadre.pipelines.index.build import build_index
from leadre.pipelines.summarize import summarize
from leadre.recipe import EvaluationRecipe, Recipe, SftRecipe, load_recipe
from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.importers.amazon import import_amazon
from leadre.store.importers.synthetic import import_world
from leadre.store.importers.taobao.folder import import_taobao
from leadre.store.records.database import connect, migrate, transaction
from leadre.synthetic import World, make_world

ROOT = Path(__file__).parents[2]
BEAUTY_CUT = datetime(2014, 5, 1, tzinfo=UTC)
"""The release has read no purchase from here on; 84 days of purchases follow (ours)."""
TAOBAO_CUT, TAOBAO_END = datetime(2017, 5, 8, tzinfo=UTC), datetime(2017, 5, 14, tzinfo=UTC)
"""Of its eight days of impressions the release has two; the shop's behaviors begin on 22 April."""
DAY = timedelta(days=1)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A data set in the system, with its lists of the past.

    Args:
        settings: where everything is.
        rows: `user_id`, `ad_id`, `event_timestamp`, `label`; as many groups as there were decisions.
        lists: how many lists of the past there are.
        releases: who made them.
        serve_at: an instant at which lists are fresh: where the walk goes online.
        index: the folder of the index.
    """

    settings: Settings
    rows: pd.DataFrame
    lists: int
    releases: tuple[str, ...]
    serve_at: datetime
    index: Path


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
    apply(settings)
    return settings


def apply(settings: Settings) -> None:
    """Run `feast apply`."""
    os.environ.update(settings.feast_environment())
    run_feast(settings.feature_repo, "apply")


def synthetic(
    settings: Settings, *, users: int, seed: int, release: str | None, recipe: Recipe | None, say: Say
) -> Ready:
    """The made-up world of `leadre demo`: what was shown in its last 35 days; two releases, each of what was before."""
    world = make_world(seed=seed, users=users)
    return impressions_of_a_world(settings, world, days=35, release=release, recipe=recipe or _small("demo"), say=say)


def impressions_of_a_world(
    settings: Settings, world: World, *, days: int, release: str | None, recipe: Recipe, say: Say
) -> Ready:
    """Import a made-up world; its rows are the impressions of its last days."""
    with_data(settings, lambda: import_world(world, database_url=settings.database_url), now=world.now)
    since = world.now - days * DAY
    return _of_impressions(settings, since, world.now, release=release, recipe=recipe, retrain=days * DAY / 2, say=say)


def taobao(settings: Settings, folder: Path, *, users: int, release: str | None, say: Say) -> Ready:
    """The public Taobao display-ad log: what was shown in its last six days."""
    rejected = settings.home / "rejected.csv"

    def load() -> None:
        options: dict[str, Any] = {"on_bad_row": "skip", "limit_users": users}
        import_taobao(folder, database_url=settings.database_url, now=TAOBAO_END, rejected=rejected, **options)

    with_data(settings, load, now=TAOBAO_END)
    recipe = _small("demo")
    recipe = change(recipe, name="taobao", index=change(recipe.index, encoder="hashed", levels=4, codes=256))
    end = TAOBAO_END
    return _of_impressions(settings, TAOBAO_CUT, end, release=release, recipe=recipe, retrain=7 * DAY, say=say)


def with_data(settings: Settings, load: Callable[[], Any], *, now: datetime) -> None:
    """Import a data set, unless there is one, and summarize it."""
    with _connected(settings) as database, transaction(database) as connection:
        there = connection.scalar(text("SELECT EXISTS (SELECT FROM ads)"))
    if not there:
        load()
        summarize(settings.database_url, now=now)


def beauty(settings: Settings, folder: Path, *, sets: int, seed: int, release: str | None, say: Say) -> Ready:
    """Amazon Beauty: purchases after the cut against sampled negatives, lists by a release that ends before it."""
    beauty_data(settings, folder)
    with _connected(settings) as database, transaction(database) as connection:
        query = "SELECT user_id, item_id AS ad_id, occurred_at FROM behaviors ORDER BY occurred_at, user_id, ordinal"
        purchases = pd.read_sql(text(query), connection)
        ad_ids = [int(ad_id) for ad_id in connection.scalars(text("SELECT ad_id FROM ads ORDER BY 1"))]
    purchases["occurred_at"] = pd.to_datetime(purchases["occurred_at"], utc=True)
    rows = purchases_against_negatives(purchases, ad_ids, since=BEAUTY_CUT, sets=sets, seed=seed)
    return ready(settings, rows, release=release, recipe=beauty_recipe(), retrain=1000 * DAY, say=say)


def beauty_data(settings: Settings, folder: Path) -> None:
    """Import Amazon Beauty, where items play the ads and purchases the conversions."""
    now = datetime(2014, 8, 1, tzinfo=UTC)
    with_data(settings, lambda: import_amazon(folder, database_url=settings.database_url, now=now), now=now)


def beauty_recipe() -> Recipe:
    """Return what is trained before the cut on Beauty: small, so that it is done in minutes (every change is ours)."""
    recipe = load_recipe(ROOT / "recipes/amazon_beauty.toml")
    sasrec = change(recipe.collaborative.sasrec, width=64, layers=1, epochs=12, patience=2, batch_size=256)
    return change(
        recipe,
        name="beauty",
        index=change(recipe.index, signal="text"),
        model=change(recipe.model, hidden_size=128, layers=2, feed_forward=384),
        sft=SftRecipe(
            curriculum=(("main",),),
            epochs=(1.0,),
            learning_rate=2e-3,
            weight_decay=0.1,
            batch_size=64,
            device_batch_size=64,
            level_loss=True,
        ),
        collaborative=change(recipe.collaborative, enabled=True, sasrec=sasrec, calibration_users=300),
        evaluation=EvaluationRecipe(max_users=300, baselines=("popularity", "co_visitation")),
    )


def lists_before(
    settings: Settings,
    wanted: Sequence[tuple[datetime, Sequence[int]]],
    *,
    release: str | None,
    recipe: Recipe,
    retrain: timedelta,
    say: Say,
) -> tuple[tuple[str, ...], Path]:
    """Make the list of each of some users as of each instant: what `leadre dataset lists` does, for users by day.

    A release that has seen an instant is refused for it (`ReleaseMismatch`).

    Returns:
        Who made them, and where their index is.
    """
    instants = [at for at, _ in wanted]
    with _connected(settings) as database:
        if release is None:
            index = build_index(
                database_url=settings.database_url, indexes=settings.indexes, recipe=recipe.index, now=instants[0] - DAY
            )
            chosen = rolling_releases(
                settings,
                instants,
                recipe=recipe,
                index_version=index.version,
                retrain_every=retrain,
                progress=lambda what, done, of: say(f"{what} {done}/{of}"),
            )
        else:
            chosen = choose_existing(database, instants, release=release)
        of_day = dict(wanted)
        decoder = PastDecoder(settings, database=database)
        for number, (at, by) in enumerate(chosen):
            plan(database, [(at, by)], user_ids=np.unique(np.asarray(of_day[at], np.int64)))
            decoder.work_off()
            say(f"lists {number + 1}/{len(chosen)} days")
    return _made_by([by for _, by in chosen], settings)


def _made_by(releases: Sequence[PastRelease], settings: Settings) -> tuple[tuple[str, ...], Path]:
    return tuple(sorted({by.row.release for by in releases})), settings.indexes / releases[-1].row.index_version


def _of_impressions(
    settings: Settings,
    since: datetime,
    until: datetime,
    *,
    release: str | None,
    recipe: Recipe,
    retrain: timedelta,
    say: Say,
) -> Ready:
    query = text("""
        SELECT user_id, ad_id, occurred_at AS event_timestamp, clicked FROM impressions
        WHERE occurred_at >= :since AND occurred_at < :until ORDER BY occurred_at, impression_id
    """)
    with _connected(settings) as database, transaction(database) as connection:
        rows = pd.read_sql(query, connection, params={"since": since, "until": until})
    rows["event_timestamp"] = pd.to_datetime(rows["event_timestamp"], utc=True)
    rows["label"] = rows.pop("clicked").astype(np.int64)
    return ready(settings, rows, release=release, recipe=recipe, retrain=retrain, say=say)


def ready(
    settings: Settings, rows: pd.DataFrame, *, release: str | None, recipe: Recipe, retrain: timedelta, say: Say
) -> Ready:
    """Make the list that each row's day began with: of behaviors before that midnight, by a release of before it."""
    days = rows["event_timestamp"].dt.floor("D")
    wanted = [(day.to_pydatetime(), of["user_id"].unique().tolist()) for day, of in rows.groupby(days)]
    releases, index = lists_before(settings, wanted, release=release, recipe=recipe, retrain=retrain, say=say)
    return Ready(
        settings=settings,
        rows=rows,
        lists=sum(len(users) for _, users in wanted),
        releases=releases,
        serve_at=wanted[-1][0],
        index=index,
    )


def _small(name: str) -> Recipe:
    """Return a shipped recipe without what costs time and moves no list much: DPO, and half the alignment (ours)."""
    recipe = load_recipe(ROOT / f"recipes/{name}.toml")
    return change(
        recipe,
        name=f"ranker-{name}",
        index=change(recipe.index, quantiser="residual_kmeans"),
        sft=change(recipe.sft, epochs=(3.0, 0.1, 3.0)),
        dpo=change(recipe.dpo, enabled=False),
        evaluation=EvaluationRecipe(max_users=300, baselines=("popularity",)),
    )


@contextmanager
def _connected(settings: Settings) -> Iterator[Engine]:
    database = connect(settings.database_url, application_name="leadre ranker example", statement_timeout_s=0)
    try:
        yield database
    finally:
        database.dispose()
