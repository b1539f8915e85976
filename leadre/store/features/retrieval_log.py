"""The retrieval log: every list ever written, as its record. LEADRE §5.3.

The offline half of the feature view `retrieved_ads`: what a ranker's training set joins to its impressions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import psycopg2
from numpy.typing import NDArray
from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError

from leadre.derivation import Lists
from leadre.errors import InvalidInput
from leadre.store.records.partitions import ensure_months
from leadre.store.records.tables import retrieval_log

COLUMNS = ("user_id", "event_at", "release", "index_version", "behavior_at", "retrieved_ad_ids", "record")
"""The columns of a row, as `append` writes and `newest` gives them."""

_STAGE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS staged_retrieval_log ON COMMIT DELETE ROWS
AS SELECT {", ".join(COLUMNS)} FROM retrieval_log WITH NO DATA
"""  # noqa: S608 - our own names
_COPY = f"COPY staged_retrieval_log ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
# By key, so that two writers of the same lists never deadlock.
_APPEND = text(f"""
    INSERT INTO retrieval_log ({", ".join(COLUMNS)})
    SELECT {", ".join(COLUMNS)} FROM staged_retrieval_log ORDER BY user_id, event_at, release ON CONFLICT DO NOTHING
""")  # noqa: S608
# A list made from no behavior counts as made from everything before it.
_ADVANCE = text("""
    INSERT INTO user_state AS t (user_id, listed_at, list_behavior_at)
    SELECT DISTINCT ON (user_id) user_id, event_at, coalesce(behavior_at, event_at) FROM staged_retrieval_log
    ORDER BY user_id, event_at DESC
    ON CONFLICT (user_id) DO UPDATE
    SET listed_at = excluded.listed_at, list_behavior_at = excluded.list_behavior_at
    WHERE t.listed_at IS NULL OR t.listed_at < excluded.listed_at
""")

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01, from which PostgreSQL counts, in Unix microseconds."""
_INT8_OID = 20
_HEAD = np.dtype([("columns", ">i2"), ("n1", ">i4"), ("user_id", ">i8"), ("n2", ">i4"), ("event_at", ">i8")])
_NUMBER = np.dtype([("bytes", ">i4"), ("value", ">i8")])


def append(connection: Connection, user_ids: NDArray[np.int64], lists: Lists, records: Sequence[bytes]) -> int:
    """Write lists, and note in `user_state` from when each user's newest one is. Writing them again changes nothing.

    Args:
        connection: in a transaction.
        user_ids: whose the lists are, int64[U].
        lists: all present.
        records: the lists as `pack` gives them.

    Returns:
        How many are new: (user, time, release) was not in the log.

    Raises:
        InvalidInput: a release or index version that PostgreSQL cannot hold.
    """
    if not records:
        return 0
    generated_us = microseconds(lists.generated_at_s)
    months = np.unique(generated_us.astype("datetime64[us]").astype("datetime64[M]"))
    ensure_months(connection, "retrieval_log", [month.item().replace(tzinfo=UTC) for month in months.astype("M8[us]")])
    connection.execute(text(_STAGE))
    with closing(connection.connection.cursor()) as cursor:
        try:
            cursor.copy_expert(_COPY, BytesIO(_copied(user_ids, lists, records, generated_us)))
        except psycopg2.Error as error:  # SQLAlchemy does not see what goes past it; `transaction` tells them apart
            raise DBAPIError.instance(_COPY, None, error, psycopg2.Error) from error
    written = connection.execute(_APPEND).rowcount
    connection.execute(_ADVANCE)
    return written


def newest(
    connection: Connection, user_ids: Sequence[int], *, at: datetime | None = None
) -> dict[int, Mapping[str, Any]]:
    """Return each user's newest row, `COLUMNS` by name; users without one are left out.

    Args:
        connection: any.
        user_ids: whose.
        at: leave later rows out; None takes all.
    """
    statement = select(*(retrieval_log.c[name] for name in COLUMNS)).where(retrieval_log.c.user_id.in_(user_ids))
    if at is not None:
        statement = statement.where(retrieval_log.c.event_at <= at)
    statement = statement.ext(distinct_on(retrieval_log.c.user_id)).order_by(
        retrieval_log.c.user_id, retrieval_log.c.event_at.desc()
    )
    return {row["user_id"]: dict(row) for row in connection.execute(statement).mappings()}


def microseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return Unix times in whole microseconds, int64; exact for times that datetime.timestamp() gave."""
    return np.rint(seconds * 1e6).astype(np.int64)


def _copied(
    user_ids: NDArray[np.int64], lists: Lists, records: Sequence[bytes], generated_us: NDArray[np.int64]
) -> bytes:
    """Return rows in COPY's binary format: nothing is written as text, or read from it."""
    count = len(records)
    heads = np.empty(count, _HEAD)
    heads["columns"], heads["n1"], heads["n2"] = len(COLUMNS), 8, 8
    heads["user_id"], heads["event_at"] = user_ids, generated_us - _POSTGRES_EPOCH_US
    without = np.isnan(lists.behavior_at_s)
    behaved = _numbers(microseconds(np.where(without, 0.0, lists.behavior_at_s)) - _POSTGRES_EPOCH_US)
    ads = _numbers(lists.ad_ids)
    texts = {name: _text(name) for name in {*lists.releases, *lists.index_versions}}
    arrays = {length: _array_head(length) for length in set(lists.counts.tolist())}
    head = heads.tobytes()
    edges, none = lists.offsets.tolist(), without.tolist()
    parts = [_SIGNATURE]
    for u, record in enumerate(records):
        begin, end = edges[u], edges[u + 1]
        parts += (
            head[u * _HEAD.itemsize : (u + 1) * _HEAD.itemsize],
            texts[lists.releases[u]],
            texts[lists.index_versions[u]],
            b"\xff\xff\xff\xff" if none[u] else behaved[u * 12 : u * 12 + 12],
            arrays[end - begin],
            ads[begin * 12 : end * 12],
            len(record).to_bytes(4, "big"),
            record,
        )
    parts.append(_END)
    return b"".join(parts)


def _numbers(values: NDArray[np.int64]) -> bytes:
    """Return each number as a field or an element: its length, 8, before it."""
    written = np.empty(len(values), _NUMBER)
    written["bytes"], written["value"] = 8, values
    return written.tobytes()


def _array_head(length: int) -> bytes:
    """Return what precedes the elements of a bigint[]."""
    if not length:
        return struct.pack(">iiiI", 12, 0, 0, _INT8_OID)
    return struct.pack(">iiiIii", 20 + _NUMBER.itemsize * length, 1, 0, _INT8_OID, length, 1)


def _text(name: str) -> bytes:
    if "\0" in name:
        raise InvalidInput("the name of a release or an index holds a NUL character, which PostgreSQL cannot store")
    encoded = name.encode()
    return len(encoded).to_bytes(4, "big") + encoded
