"""Lists of the past: what a user's list was at a row's time, by a release that had not seen the row. LEADRE §5.3.

What `leadre dataset lists` does, for the users of each instant instead of all: rows need no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Engine

from leadre.pipelines.dataset.backfill import PastDecoder, choose_existing, plan
from leadre.pipelines.dataset.rolling import rolling_releases
from leadre.pipelines.index.build import build_index
from leadre.recipe import Recipe
from leadre.settings import Settings
from leadre.store.records.database import connect

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
SERVED = 450
"""Users who have a fresh list where the walk goes online (ours)."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How lists of the past are made.

    Args:
        release: who makes them; None: releases are trained, before the first row and every `retrain` after it.
        recipe: of those.
        retrain: from one training to the next.
        every: a list is as old as this at most: a row has the one of the beginning of its hour, or day.
        say: told how far it is.
    """

    release: str | None
    recipe: Recipe
    retrain: timedelta
    every: timedelta
    say: Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Rows whose lists are in the retrieval log.

    Args:
        settings: where everything is.
        rows: `user_id`, `ad_id`, `event_timestamp`, `label`.
        lists: how many lists there are.
        releases: who made them.
        serve_at: an instant at which lists are fresh: where the walk goes online.
        index: the folder of their index.
        every: how old they may be.
    """

    settings: Settings
    rows: pd.DataFrame
    lists: int
    releases: tuple[str, ...]
    serve_at: datetime
    index: Path
    every: timedelta


def with_lists(settings: Settings, rows: pd.DataFrame, making: Making) -> Ready:
    """Make the list of each row: of behaviors before its hour (or day), by a release of before it.

    Args:
        settings: where everything is.
        rows: `user_id`, `ad_id`, `event_timestamp`, `label`.
        making: how.

    Raises:
        ReleaseMismatch: the release has seen what happened at a row's time.
        ConfigError: there is no such release.
    """
    of_instant = rows["event_timestamp"].dt.floor(making.every)
    wanted = {at.to_pydatetime(): of["user_id"].unique() for at, of in rows.groupby(of_instant)}
    instants = sorted(wanted)
    wanted[instants[-1]] = np.union1d(wanted[instants[-1]], newest_users(rows)[:SERVED])
    with connected(settings) as database:
        if making.release is None:
            version = _index(settings, instants[0], making.recipe)
            chosen = rolling_releases(
                settings,
                instants,
                recipe=making.recipe,
                index_version=version,
                retrain_every=making.retrain,
                progress=lambda what, done, of: making.say(f"{what} {done}/{of}"),
            )
        else:
            chosen = choose_existing(database, instants, release=making.release)
        decoder = PastDecoder(settings, database=database)
        for number, (at, by) in enumerate(chosen, start=1):
            plan(database, [(at, by)], user_ids=np.asarray(wanted[at], np.int64))
            decoder.work_off()
            making.say(f"lists of {number}/{len(chosen)} instants")
    return Ready(
        settings=settings,
        rows=rows,
        lists=sum(len(wanted[at]) for at, _ in chosen),
        releases=tuple(sorted({by.row.release for _, by in chosen})),
        serve_at=instants[-1],
        index=settings.indexes / chosen[-1][1].row.index_version,
        every=making.every,
    )


def newest_users(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the users of rows, those with the latest row first, int64[U]."""
    newest = rows.sort_values("event_timestamp", kind="stable").drop_duplicates("user_id", keep="last")
    return np.asarray(newest["user_id"], np.int64)[::-1]


@contextmanager
def connected(settings: Settings) -> Iterator[Engine]:
    """Give connections to the system of record, and close them."""
    database = connect(settings.database_url, application_name="leadre ranker example", statement_timeout_s=0)
    try:
        yield database
    finally:
        database.dispose()


def _index(settings: Settings, first: datetime, recipe: Recipe) -> str:
    """Return the version of an index of before the first instant."""
    where, what = settings.indexes, recipe.index
    return build_index(database_url=settings.database_url, indexes=where, recipe=what, now=first - TICK).version
