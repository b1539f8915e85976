"""Shards of a materialization: rows from PostgreSQL to Redis in batches, counted, and some of them read back.

LEADRE §4.4.1. A shard's rows are set where they are newer, so that writing it again is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine

from leadre.errors import FeatureRowMismatch
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.view import View
from leadre.store.features.online_rows import Row, place_of, set_rows
from leadre.store.records.database import transaction

BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20
"""What waits in memory at most before it is written (ours): so many rows, or so many bytes of them."""
SAMPLED = 10
"""Rows of a batch that are read back (ours)."""
_HEADER, _TRAILER = 19, b"\xff\xff"
"""COPY's binary format: bytes before the first row, and what stands in a row's place after the last."""

Report = Callable[[str, int], None]
"""Told the view and how many of its rows were written, after each batch."""


def write_shards(
    database: Engine, client: Any, views: Mapping[str, View], under_way: Collection[runs.Run], report: Report
) -> int:
    """Write shards of runs until there is none left that nobody works on; return how many.

    Args:
        database: the system of record.
        client: the online store's Redis.
        views: by name, those of the runs.
        under_way: the runs.
        report: told of progress.

    Raises:
        FeatureRowMismatch: rows did not arrive. The shard counts as not written.
        InvalidInput: a value that Feast has no form for.
        Unavailable: PostgreSQL does not answer.
        redis.RedisError: Redis does not answer, or refuses.
    """
    shards = 0
    while write_shard(database, client, views, under_way, report):
        shards += 1
    return shards


def write_shard(
    database: Engine,
    client: Any,
    views: Mapping[str, View],
    under_way: Collection[runs.Run],
    report: Report = lambda _, __: None,
) -> bool:
    """Write one shard that nobody works on; return whether there was one. See `write_shards`."""
    with transaction(database) as connection:
        shard = runs.claim(connection, under_way)
        if shard is None:
            return False
        view = views[shard.run.view]
        copy = view.copy_newest(shard.condition(view))
        read, written = copy_online(connection, client, view, copy=copy, report=report)
        runs.settle(connection, shard, read=read, written=written)
    return True


def copy_online(
    connection: Connection, client: Any, view: View, *, copy: str, report: Report = lambda _, __: None
) -> tuple[int, int]:
    """Copy rows of a view's source to the online store.

    Args:
        connection: in a transaction.
        client: the online store's Redis.
        view: whose rows.
        copy: one of the view's COPY statements.
        report: told of progress.

    Returns:
        Rows read, all of which the store acknowledged, and how many of them were newer than what it held.

    Raises:
        FeatureRowMismatch, InvalidInput, redis.RedisError: as `write_shards`.
    """
    batches = _Batches(client, view, report)
    with closing(connection.connection.cursor()) as cursor:
        cursor.copy_expert(copy, batches)
        batches.flush()
        read_back(client, [(view, batches.sample)])
        if batches.read != cursor.rowcount:
            raise FeatureRowMismatch(
                f"PostgreSQL sent {cursor.rowcount:,} rows of {view.name} and {batches.read:,} were written: run again"
            )
    return batches.read, batches.written


class _Batches:
    """What COPY writes to, row by row."""

    def __init__(self, client: Any, view: View, report: Report) -> None:
        self.read = self.written = 0
        self._client, self._view, self._report = client, view, report
        self._rows: list[bytes] = []
        self._bytes = 0
        self._skip = _HEADER
        self.sample: list[Row] = []

    def write(self, row: bytes) -> None:
        """Take a row; the first comes behind the header."""
        if self._skip:
            row, self._skip = row[self._skip :], 0
        if row and row != _TRAILER:
            self._rows.append(row)
            self._bytes += len(row)
            if len(self._rows) == BATCH_ROWS or self._bytes >= BATCH_BYTES:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._rows:
            return
        rows = list(self._view.online(self._rows))
        self.written += set_rows(self._client, rows, ttl_s=self._view.ttl_s, replace_equal=self._view.in_place)
        self.read += len(rows)
        self.sample += rows[:: -(-len(rows) // SAMPLED)]
        self._rows, self._bytes = [], 0
        self._report(self._view.name, len(rows))


def read_back(client: Any, samples: Sequence[tuple[View, Sequence[Row]]]) -> None:
    """Look whether rows of views are there: as written, or newer. One round trip.

    Raises:
        FeatureRowMismatch: some are not.
        redis.RedisError: Redis does not answer.
    """
    if not any(rows for _, rows in samples):
        return
    pipeline = client.pipeline(transaction=False)
    for _, rows in samples:
        for key, fields in rows:
            pipeline.hmget(key, fields[::2])
    answers = iter(pipeline.execute())
    for view, rows in samples:
        missing = 0
        for _, fields in rows:
            values = next(answers)
            there = list(chain.from_iterable(zip(fields[::2], values, strict=True)))
            missing += None in values or place_of(there) < place_of(fields)
        if missing:
            raise FeatureRowMismatch(
                f"{missing} of {len(rows)} {view.join_key}s of {view.name} are missing in Redis, or older there, "
                "though it acknowledged them: look at its log and its memory, and run again"
            )
