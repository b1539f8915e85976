"""Shards of a backfill: users whose lists as of an instant of the past are to be made. LEADRE §5.3.

What waits lies in the table `backfill_shards`, so that any number of processes on any machine take from it, and one
that dies loses nothing: a shard is taken by an advisory lock of the taker's session, which ends with the session. A
finished shard stays, so that a backfill asked for again does not look at its users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, func, select, text

from leadre.store.records.bulk import copy_rows
from leadre.store.records.database import session
from leadre.store.records.partitions import SCHEMA, month_of, name_of
from leadre.store.records.tables import backfill_shards, retrieval_log

SHARD_USERS = 512
"""Users of a shard (ours): seconds of work, so that what a killed process had begun is soon made again."""
_LOOKED_AT = 1000
_KEY = ("event_at", "release", "users_hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some users, an instant, and the release that makes their lists."""

    event_at: datetime
    release: str
    users_hash: int
    user_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is left of a backfill: `shards` with so many `lists`, and the first problem of those that failed."""

    shards: int
    lists: int
    failed: int
    problem: str | None


def plan(connection: Connection, instants: Iterable[tuple[datetime, str]], *, user_ids: NDArray[np.int64]) -> Waiting:
    """Note what is to be made, in place of what an earlier plan left undone. What is finished stays finished.

    Args:
        connection: in a transaction.
        instants: pairs of an instant and the release that decodes it.
        user_ids: different ones, int64[U].

    Returns:
        What waits now.
    """
    connection.execute(text("LOCK TABLE backfill_shards IN SHARE ROW EXCLUSIVE MODE"))  # two plans, one after the other
    connection.execute(backfill_shards.delete().where(backfill_shards.c.finished_at.is_(None)))
    _forget_dropped_months(connection)
    parts = [(_hash(part), part.tolist()) for part in _parts(np.sort(user_ids))]
    rows = ((at, release, hashed, part) for at, release in instants for hashed, part in parts)
    copy_rows(connection, backfill_shards, (*_KEY, "user_ids"), rows, key=_KEY, on_conflict="nothing")
    return waiting(connection)


def waiting(connection: Connection) -> Waiting:
    """Return what is left to do."""
    query = text(
        "SELECT count(*) AS shards, coalesce(sum(cardinality(user_ids)), 0)::bigint AS lists, count(problem) AS failed,"
        " min(problem) AS problem FROM backfill_shards WHERE finished_at IS NULL"
    )
    return Waiting(**connection.execute(query).one()._mapping)


@contextmanager
def taken(database: Engine) -> Iterator[Shard | None]:
    """Give a shard that nobody else has, oldest instant first; None when there is none. It is the taker's to the end.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    with session(database) as connection:  # and not a transaction, which would be open for minutes
        connection.execute(text("SET tcp_keepalives_idle = 30"))  # a machine that is gone keeps no shard
        key = None
        try:
            key, shard = _take(connection)
            yield shard
        finally:
            if key is not None:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


def finish(connection: Connection, shard: Shard) -> None:
    """Note that every user of the shard has a list."""
    _note(connection, shard, {"finished_at": func.now(), "user_ids": []})


def fail(connection: Connection, shard: Shard, *, problem: str) -> None:
    """Note why the shard cannot be done; nobody takes it until it is planned again."""
    _note(connection, shard, {"problem": problem})


def without_list(connection: Connection, shard: Shard) -> list[int]:
    """Return the shard's users who have no list of this release and instant in the log, in their order."""
    log = retrieval_log.c
    query = select(log.user_id).where(
        log.event_at == shard.event_at, log.release == shard.release, log.user_id.in_(shard.user_ids)
    )
    there = set(connection.scalars(query))
    return [user_id for user_id in shard.user_ids if user_id not in there]


def _take(connection: Connection) -> tuple[int | None, Shard | None]:
    rows = backfill_shards.c
    waits = rows.finished_at.is_(None) & rows.problem.is_(None)
    first = select(rows.event_at, rows.release, rows.users_hash).where(waits).order_by(*(rows[name] for name in _KEY))
    for event_at, release, users_hash in connection.execute(first.limit(_LOOKED_AT)).all():
        key = _lock_of(event_at, release, users_hash)
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
            continue
        this = (rows.event_at == event_at) & (rows.release == release) & (rows.users_hash == users_hash)
        user_ids = connection.scalar(select(rows.user_ids).where(this & waits))  # done between the two questions?
        if user_ids is not None:
            shard = Shard(event_at=event_at, release=release, users_hash=users_hash, user_ids=tuple(user_ids))
            return key, shard
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
    return None, None


def _forget_dropped_months(connection: Connection) -> None:
    """Forget finished shards whose lists were dropped with their month."""
    instants = connection.scalars(select(backfill_shards.c.event_at).distinct()).all()
    months = {name_of(retrieval_log.name, month_of(at)): month_of(at) for at in instants}
    query = text("SELECT relname FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace)")
    kept = set(connection.scalars(query, {"schema": SCHEMA}))
    for name, month in months.items():
        if name not in kept:
            gone = text("DELETE FROM backfill_shards WHERE date_trunc('month', event_at, 'UTC') = :month")
            connection.execute(gone, {"month": month})


def _parts(user_ids: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.array_split(user_ids, np.arange(SHARD_USERS, len(user_ids), SHARD_USERS)) if len(user_ids) else []


def _hash(user_ids: NDArray[np.int64]) -> int:
    return int.from_bytes(hashlib.blake2b(user_ids.tobytes(), digest_size=8).digest(), "big") >> 1


def _lock_of(event_at: datetime, release: str, users_hash: int) -> int:
    words = f"backfill|{event_at.timestamp()!r}|{release}|{users_hash}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big", signed=True)


def _note(connection: Connection, shard: Shard, values: dict[str, Any]) -> None:
    this = (backfill_shards.c[name] == getattr(shard, name) for name in _KEY)
    connection.execute(backfill_shards.update().where(*this).values(values))
