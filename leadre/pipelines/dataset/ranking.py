"""A ranker's training set: impressions with labels, joined to the features of their own time, as Parquet by day.

LEADRE §5.3. A day is read, joined and written in parts, so memory is bounded; a day that is there is not made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from leadre.pipelines.dataset.days import About, Description, bounds_of, days_there, describe, writing
from leadre.pipelines.dataset.past import seen_until
from leadre.settings import Settings
from leadre.store.features.point_in_time import RankerJoin, Stored
from leadre.store.past import labels
from leadre.store.past.joins import open_join
from leadre.store.past.labels import labelled_impressions
from leadre.store.records.database import connect, transaction

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

Engine = Literal["postgres", "duckdb"]
Progress = Callable[[str, int, int | None], None]
SOURCES = ".sources"
"""Folder of a training set with the sources as DuckDB joins them."""
REASON = pa.field("neutral", pa.string(), nullable=False)
"""Why some or all features of a row are neutral; empty where none is for want of data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a run wrote: `days` of them with `rows`; `kept` days were there already."""

    days: int
    kept: int
    rows: int


def write_ranking_set(
    settings: Settings,
    folder: Path,
    *,
    since: date,
    until: date,
    engine: Engine = "postgres",
    progress: Progress | None = None,
) -> Written:
    """Write the days from `since` until before `until` (UTC) that are not there.

    Args:
        settings: where the servers and the feature repository are.
        folder: of the training set.
        since: the first day.
        until: the day after the last.
        engine: what joins: PostgreSQL, or DuckDB over Parquet files that are exported first.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        ConfigError: the folder holds a set of other features; or DuckDB is not installed.
        FeatureRowMismatch: the join lost rows.
        Unavailable: a server does not answer.
    """
    database = connect(settings.database_url, application_name="leadre dataset", statement_timeout_s=0)
    days = Description(since=since, until=until, features=()).days
    missing = sorted(set(days) - set(days_there(folder)))
    try:
        join = open_join(
            settings.feature_repo,
            settings.feast_environment(),
            database,
            engine=engine if missing else "postgres",
            sources=folder / SOURCES,
            since=bounds_of(min(missing, default=since))[0],
            until=bounds_of(max(missing, default=since))[1],
            progress=progress,
        )
        describe(folder, Description(since=since, until=until, features=join.names))
        rows = 0
        for number, day in enumerate(missing):
            rows += _write_day(database, join, folder, day)
            if progress is not None:
                progress("days", number + 1, len(missing))
        return Written(days=len(missing), kept=len(days) - len(missing), rows=rows)
    finally:
        database.dispose()


def _write_day(database: Database, join: RankerJoin, folder: Path, day: date) -> int:
    start, end = bounds_of(day)
    schema = pa.schema([*labels.SCHEMA, REASON, *join.schema])
    about, counts, releases = About(), Counter[str](), set[str]()
    with writing(folder, day, schema, about) as writer:
        for rows in labelled_impressions(database, since=start, until=end):
            stored, features = join.features(
                user_ids=rows["user_id"].to_numpy(),
                ad_ids=rows["ad_id"].to_numpy(),
                requested_at_us=rows["requested_at"].cast(pa.int64()).to_numpy(),
            )
            reasons = _reasons(database, rows, stored)
            columns = [*rows.columns, pa.array(reasons, pa.string()), *features.values()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            about.rows += rows.num_rows
            counts.update(reasons.tolist())
            releases.update(pc.unique(features["release"]).to_pylist())
        about.neutral = {reason: count for reason, count in counts.items() if reason}
        with transaction(database) as connection:
            known = seen_until(connection)
        about.releases = {
            name: until.isoformat() if (until := known.get(name)) else None for name in sorted(releases - {""})
        }
    return about.rows


def _reasons(database: Database, rows: pa.Table, stored: Stored) -> NDArray[np.str_]:
    """Return why features of each row are neutral, the gravest reason: "" where none is."""
    lists, of_row = stored.lists, stored.list_of_row
    user_ids, at_us = rows["user_id"].to_numpy(), rows["requested_at"].cast(pa.int64()).to_numpy()
    absent = ~lists.present[of_row]
    listed = np.zeros(len(of_row), np.bool_)
    if absent.any():
        with transaction(database) as connection:
            known, first_us = labels.first_lists(connection, np.unique(user_ids[absent]))
        if len(known):
            place = np.minimum(np.searchsorted(known, user_ids), len(known) - 1)
            listed = (known[place] == user_ids) & (first_us[place] <= at_us)
    version = stored.ads["ad_index_version"].combine_chunks()
    of_list = pa.array(lists.index_versions).take(pa.array(of_row))
    same = pc.equal(version, of_list).fill_null(pa.scalar(value=False)).to_numpy(zero_copy_only=False)
    conditions = [
        (absent & (of_row != len(lists) - 1), "unreadable list"),
        (absent & listed, "expired"),
        (absent, "no list"),
        (lists.counts[of_row] == 0, "empty list"),
        (version.is_null().to_numpy(zero_copy_only=False), "ad not in the index"),
        (~same, "other index version"),
    ]
    return np.select([where for where, _ in conditions], [reason for _, reason in conditions], "")
