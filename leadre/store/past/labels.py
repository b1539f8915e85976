"""Impressions with their labels, and whose they are: the left side of a ranker's training set. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from tempfile import TemporaryFile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Connection, Engine, text

from leadre.store.records.database import transaction

ROWS_AT_ONCE = 100_000
"""Rows of a part (ours): what is in memory at once, and a row group of the training set."""
TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("impression_id", pa.int64(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("ad", pa.string(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("ad_id", pa.int64(), nullable=False),
        pa.field("requested_at", TIME, nullable=False),
        pa.field("clicked", pa.bool_(), nullable=False),
        pa.field("converted", pa.bool_(), nullable=False),
        pa.field("ecpm", pa.float64(), nullable=False),
        pa.field("ecpm_simulated", pa.bool_(), nullable=False),
    ]
)
"""Columns of a training row that are no features: `user` and `ad` as their owner names them, `user_id` and `ad_id` as
Feast does."""


def labelled_impressions(database: Engine, *, since: datetime, until: datetime) -> Iterator[pa.Table]:
    """Yield the impressions from `since` until before `until` in order of time, as tables of `SCHEMA`.

    They wait in a temporary file: no transaction is open meanwhile.

    Args:
        database: the system of record.
        since: aware.
        until: aware.
    """
    query = """
        SELECT impression_id, coalesce(u.source_id, i.user_id::text), coalesce(a.source_id, i.ad_id::text), i.user_id,
               i.ad_id, to_char(occurred_at, 'YYYY-MM-DD HH24:MI:SS.USZ'), clicked, converted, ecpm, simulated
        FROM impressions i LEFT JOIN users u USING (user_id) LEFT JOIN ads a USING (ad_id)
        WHERE occurred_at >= %s AND occurred_at < %s ORDER BY occurred_at, impression_id
    """
    with TemporaryFile() as file:
        with transaction(database) as connection, closing(connection.connection.cursor()) as cursor:
            rows = cursor.mogrify(query, [since, until]).decode()
            cursor.copy_expert(f"COPY ({rows}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)", file)
        if file.tell() == 0:
            return
        file.seek(0)
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(column_names=SCHEMA.names, block_size=16 << 20),
            convert_options=csv.ConvertOptions(column_types=SCHEMA, true_values=["t"], false_values=["f"]),
        )
        waiting: list[pa.RecordBatch] = []
        count = 0
        for batch in reader:
            waiting.append(batch)
            count += batch.num_rows
            while count >= ROWS_AT_ONCE:
                table = pa.Table.from_batches(waiting)
                yield table.slice(0, ROWS_AT_ONCE).combine_chunks()
                rest = table.slice(ROWS_AT_ONCE)
                waiting, count = rest.to_batches(), rest.num_rows
        if count:
            yield pa.Table.from_batches(waiting).combine_chunks()


def shown_users(
    connection: Connection, *, since: datetime, until: datetime, limit: int | None = None
) -> NDArray[np.int64]:
    """Return who was shown an ad from `since` until before `until`, those who saw the most first, int64[n].

    Args:
        connection: in a transaction.
        since: aware.
        until: aware.
        limit: at most so many; None: all.
    """
    query = text("""
        SELECT user_id FROM impressions WHERE occurred_at >= :since AND occurred_at < :until
        GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT :limit
    """)
    return np.array(connection.scalars(query, {"since": since, "until": until, "limit": limit}).all(), np.int64)


def all_users(connection: Connection) -> NDArray[np.int64]:
    """Return every user of the catalog, int64[n]."""
    return np.array(connection.scalars(text("SELECT user_id FROM users ORDER BY 1")).all(), np.int64)


def first_lists(connection: Connection, user_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the users have a list in the log, int64[n] ascending, and when the first was made, in Unix us."""
    query = text("""
        SELECT user_id, (extract(epoch FROM min(event_at)) * 1000000)::bigint FROM retrieval_log
        WHERE user_id = ANY(:user_ids) GROUP BY user_id ORDER BY 1
    """)
    rows = connection.execute(query, {"user_ids": user_ids.tolist()})
    found = np.fromiter((tuple(row) for row in rows), np.dtype("i8,i8"))
    return found["f0"].astype(np.int64), found["f1"].astype(np.int64)
