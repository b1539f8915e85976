"""Ingest: reported behaviors out of the Redis stream, into PostgreSQL, in idempotent batches. LEADRE §4.4.1.

docs/adr/0011. The order is: commit, mark the users in the refresh queue, take the entries out of the stream. Whoever
dies in between leaves entries that are written again, which changes nothing. An entry that nobody can write goes to the
dead stream, and the others of its batch pass.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import Gauge, Histogram
from redis import Redis

from leadre.errors import InvalidInput
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import behavior_stream
from leadre.serving.behavior_stream import BEHAVIORS, DEAD, FIELD, GROUP, STREAM, Report
from leadre.store.records.database import transaction
from leadre.store.records.request_path import Stale, store_free

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

logger = logging.getLogger(__name__)

MOST_BEHAVIORS = 5_000
"""Behaviors after which a transaction takes no other entry (ours); an entry has up to 100."""
MOST_DEAD = 10_000
"""Dead entries that are kept, about (ours): the newest."""

ENTRIES = Gauge("leadre_stream_entries", "Entries of the stream of behaviors that are not in PostgreSQL yet.")
LAG = Histogram(
    "leadre_ingest_seconds",
    "From a report's arrival to its commit in PostgreSQL.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the stream, as it was read: `payload` is empty where the entry has none."""

    entry_id: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """An entry that cannot be written, and why."""

    entry: Entry
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisted:
    """What became of some entries.

    Args:
        written: they are in PostgreSQL.
        busy: another transaction holds their users, such as an import: later.
        dead: nobody can write them.
        stale: users who want a refresh, once for each written report of theirs.
        new, repeated: behaviors that PostgreSQL did not have, and had.
        unknown: behaviors of items that the catalog does not hold.
        arrived: when each written entry arrived, in their order.
    """

    written: tuple[Entry, ...] = ()
    busy: tuple[Entry, ...] = ()
    dead: tuple[Dead, ...] = ()
    stale: tuple[Stale, ...] = ()
    new: int = 0
    repeated: int = 0
    unknown: int = 0
    arrived: tuple[datetime, ...] = ()

    def __add__(self, other: Persisted) -> Persisted:
        """Put together, field by field."""
        return Persisted(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def persist(database: Database, entries: Sequence[Entry], *, now: datetime) -> Persisted:
    """Write entries to PostgreSQL, in one transaction unless it refuses some of them.

    A behavior is known from `now`, not from its arrival here: what was served in between did not know it.

    Args:
        database: the system of record.
        entries: as `batches` makes them.
        now: the present.

    Raises:
        Unavailable: PostgreSQL does not answer. Some entries may be written; a repetition changes nothing.
    """
    reports: list[tuple[Entry, Report]] = []
    dead: list[Dead] = []
    for entry in entries:
        try:
            reports.append((entry, behavior_stream.decode(entry.payload)))
        except InvalidInput as error:
            dead.append(Dead(entry=entry, why=str(error)))
    return Persisted(dead=tuple(dead)) + (_write(database, reports, now=now) if reports else Persisted())


def _write(database: Database, reports: Sequence[tuple[Entry, Report]], *, now: datetime) -> Persisted:
    rows = [behavior for _, report in reports for behavior in report.behaviors]
    try:
        with transaction(database) as connection:
            arrived = store_free(connection, rows, arrived_at=now)
    except InvalidInput as error:
        if len(reports) == 1:
            return Persisted(dead=(Dead(entry=reports[0][0], why=str(error)),))
        half = len(reports) // 2
        return _write(database, reports[:half], now=now) + _write(database, reports[half:], now=now)
    written = [(entry, report) for entry, report in reports if report.user_id not in arrived.busy]
    stale = {user.user_id: user for user in arrived.stale}
    return Persisted(
        written=tuple(entry for entry, _ in written),
        busy=tuple(entry for entry, report in reports if report.user_id in arrived.busy),
        stale=tuple(
            stale[report.user_id]
            for _, report in written
            if report.user_id in stale and any(behavior.positive for behavior in report.behaviors)
        ),
        new=arrived.new,
        repeated=sum(len(report.behaviors) for _, report in written) - arrived.new,
        unknown=sum(arrived.unknown.values()),
        arrived=tuple(report.arrived_at for _, report in written),
    )


def settle(redis: Redis, queue: RefreshQueue, done: Persisted, *, now: datetime) -> None:
    """Mark the stale users in the refresh queue, then take what is written or dead out of the stream.

    Args:
        redis: where the stream is.
        queue: the refresh queue.
        done: what `persist` returned; it has committed.
        now: the present, for the metric of the delay.

    Raises:
        Unavailable, redis.RedisError: Redis does not answer; a repetition is harmless.
    """
    for new in (False, True):
        if users := [user for user in done.stale if user.never_listed is new]:
            queue.mark([user.user_id for user in users], groups=[user.group for user in users], new=new)
    with redis.pipeline(transaction=True) as pipeline:
        for dead in done.dead:
            fields: dict[Any, Any] = {FIELD: dead.entry.payload, "why": dead.why, "id": dead.entry.entry_id}
            pipeline.xadd(DEAD, fields, maxlen=MOST_DEAD, approximate=True)
            logger.error("behaviors_dead", extra={"entry": dead.entry.entry_id.decode()})
        if ids := [entry.entry_id for entry in (*done.written, *(dead.entry for dead in done.dead))]:
            pipeline.xack(STREAM, GROUP, *ids)
            pipeline.xdel(STREAM, *ids)
        pipeline.xlen(STREAM)
        ENTRIES.set(pipeline.execute()[-1])
    counts = {"persisted": done.new, "repeated": done.repeated, "unknown_item": done.unknown, "dead": len(done.dead)}
    for outcome, count in counts.items():
        BEHAVIORS.labels(outcome).inc(count)
    for arrived_at in done.arrived:
        LAG.observe((now - arrived_at).total_seconds())


def revive(redis: Redis) -> int:
    """Put the dead entries back into the stream, once what killed them is mended; return how many.

    Raises:
        redis.RedisError: Redis does not answer; some may be back, and a repetition is harmless.
    """
    revived = 0
    for dead_id, fields in cast("list[Any]", redis.xrange(DEAD)):
        with redis.pipeline(transaction=True) as pipeline:
            pipeline.xadd(STREAM, {FIELD: fields[FIELD.encode()]})
            pipeline.xdel(DEAD, dead_id)
            pipeline.execute()
        revived += 1
    return revived


def batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Part entries into batches that one transaction can write, of about `MOST_BEHAVIORS` at most."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += max(1, entry.payload.count(b"[") - 1)  # an upper bound of its behaviors
        if size >= MOST_BEHAVIORS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
