"""A materialization: what is new in all views to the online store, shard by shard, counted and registered.

LEADRE §4.4.1. This process writes the shards that no other takes: how many others there are is the caller's business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feast import FeatureStore
from sqlalchemy import Engine

from leadre.errors import Unavailable
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.definitions import cut_future, find_views, register
from leadre.store.features.materialization.shards import Report, write_shards
from leadre.store.features.materialization.view import View
from leadre.store.records.database import transaction

Share = Callable[[Mapping[str, View], Sequence[runs.Run]], AbstractContextManager[object]]
"""Given views by name and their runs; what it returns is entered before this process writes their shards, and left when
there is none that nobody works on."""

PATIENCE_S = 600.0
"""How long shards that others hold may take to finish one (ours): longer than PostgreSQL lets a statement run."""
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialized:
    """What a materialization did.

    Args:
        read: rows by view, one an entity with new rows; the online store has acknowledged all of them.
        written: of them, those newer than what the store held.
        said: what an operator should know, a line each.
    """

    read: Mapping[str, int]
    written: Mapping[str, int]
    said: Sequence[str]


def materialize(
    store: FeatureStore,
    database: Engine,
    client: Any,
    *,
    now: datetime,
    views: Collection[str] = (),
    full: bool = False,
    shard_entities: int = runs.SHARD_ENTITIES,
    share: Share = lambda _, __: nullcontext(),
    report: Report = lambda _, __: None,
) -> Materialized:
    """Bring the online store up to `now`: first what a run that was killed has left, then what is new since.

    A Redis that does not know the run before (it was lost, or is another one) gets everything.

    Args:
        store: the applied feature store.
        database: the system of record.
        client: the online store's Redis.
        now: rows with a later event time wait.
        views: only these; all, if none is given.
        full: everything, not what is new.
        shard_entities: most entities of a shard.
        share: lets others take part.
        report: told of the progress of this process.

    Raises:
        ConfigError: as `find_views` and `runs.plan`.
        FeatureRowMismatch, InvalidInput: as `write_shards` and `runs.finish`.
        Unavailable: PostgreSQL does not answer, or others hold shards and finish none.
        redis.RedisError: Redis does not answer, or refuses.
    """
    found = {view.name: view for view in find_views(store, views)}
    said = cut_future(store, now=now)
    known = f"leadre:materialized:{store.project}"  # the number of each view's newest run, in Redis
    with transaction(database) as connection:
        for name in found:
            newest, noted = runs.newest(connection, name), client.hget(known, name)
            if newest is not None and int(noted or 0) < newest:
                said.append(f"{name}: this Redis does not know the materialization before, and gets all rows")
                runs.forget(connection, name)
            elif full:
                runs.forget(connection, name)
        left = runs.unfinished(connection, found)
    read: Counter[str] = Counter(dict.fromkeys(found, 0))
    written = read.copy()

    def complete(under_way: Sequence[runs.Run]) -> None:
        if under_way:
            with share(found, under_way):
                write_shards(database, client, found, under_way, report)
        for run in under_way:
            in_run = _complete(database, client, found, run, report)
            read[run.view] += in_run[0]
            written[run.view] += in_run[1]

    complete(left)
    planned = []
    for view in found.values():
        with transaction(database) as connection:
            planned.append(runs.plan(connection, view, until=now, shard_entities=shard_entities))
            client.hset(known, view.name, planned[-1].run)  # before others see the run
    complete(planned)
    register(store, found, until=now)
    return Materialized(read=read, written=written, said=said)


def _complete(
    database: Engine, client: Any, views: Mapping[str, View], run: runs.Run, report: Report
) -> tuple[int, int]:
    """Write what is left of a run, wait for the shards that others hold, and finish it: rows read and written."""
    waited_s = 0.0
    while True:
        if write_shards(database, client, views, [run], report):
            waited_s = 0.0
        with transaction(database) as connection:
            counted = runs.finish(connection, run, views[run.view])
        if counted:
            return counted
        if waited_s > PATIENCE_S:
            raise Unavailable(
                f"shards of the materialization of {run.view} have been held by other processes for {waited_s:.0f} s: "
                "look for processes that hang (pg_stat_activity), then run again"
            )
        time.sleep(_LOOK_S)
        waited_s += _LOOK_S
