"""The retrieval log: every list ever written, as its record. LEADRE §5.3.

The offline half of the feature view `retrieved_ads`: what a ranker's training set joins to its impressions.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import psycopg2
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import DBAPIError

from leadre.derivation import Lists
from leadre.errors import InvalidInput
from leadre.store.records.partitions import ensure_months, missing_months
from leadre.store.records.prepared import FEW, Prepared
from leadre.store.records.tables import retrieval_log

COLUMNS = ("user_id", "event_at", "release", "index_version", "behavior_at", "retrieved_ad_ids", "record")
"""The columns of a row, as `append` writes and `newest` gives them."""

FENCE = """
CASE WHEN substring({record} FROM 1 FOR 1) = '\\x02'::bytea THEN substring({record} FROM 3 FOR 8)
ELSE '\\x0000000000000000'::bytea END
"""
"""SQL: release epoch and behavior sequence of a record, as bytes that compare like the numbers (docs/features.md)."""

_STAGED = (*COLUMNS, "release_epoch", "behavior_sequence")
_STAGE = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS staged_retrieval_log ON COMMIT DELETE ROWS
AS SELECT {", ".join(COLUMNS)}, 0::bigint AS release_epoch, 0::bigint AS behavior_sequence
FROM retrieval_log WITH NO DATA
"""  # noqa: S608 - our own names
_COPY = f"COPY staged_retrieval_log ({', '.join(_STAGED)}) FROM STDIN (FORMAT binary)"
_FROM_STAGE = f"SELECT {', '.join(_STAGED)} FROM staged_retrieval_log"  # noqa: S608
# An array of arrays of different lengths is none: a user's ads come as the text of one.
_TYPES = {
    "user_ids": "bigint[]",
    "event_at": "timestamptz[]",
    "release": "text[]",
    "index_version": "text[]",
    "behavior_at": "timestamptz[]",
    "ads": "text[]",
    "record": "bytea[]",
    "epochs": "bigint[]",
    "sequences": "bigint[]",
}
_FROM_ARRAYS = f"""
SELECT user_id, event_at, release, index_version, behavior_at, ads::bigint[] AS retrieved_ad_ids, record,
       release_epoch, behavior_sequence
FROM unnest({", ".join(f":{name}" for name in _TYPES)})
AS g (user_id, event_at, release, index_version, behavior_at, ads, record, release_epoch, behavior_sequence)
"""  # noqa: S608
# By key, so that two writers never deadlock. In a statement of its own, before: the next one sees what those have
# committed who were waited for.
_LOCK = """
INSERT INTO user_state (user_id) SELECT DISTINCT user_id FROM {users} AS g (user_id) ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET listed_at = user_state.listed_at WHERE false
"""
# A list made from no behavior counts as made from everything before it. One that is ahead of the list before it though
# made earlier, by another clock, was known later all the same, and its row says so: by time the rows of a user are in
# the order of their fences. Not where the list before it is from a future: it would take all later ones along. What
# comes too late was never online, and is no row: but for lists of the past, which no promotion made.
_APPEND = f"""
WITH given AS MATERIALIZED ({{given}}), times AS (SELECT event_at AS at FROM given),
missing AS MATERIALIZED ({missing_months(["retrieval_log"], "times")}),
newest AS MATERIALIZED (
    SELECT DISTINCT ON (user_id) user_id, event_at, release, behavior_at, release_epoch, behavior_sequence
    FROM given WHERE NOT EXISTS (SELECT FROM missing)
    ORDER BY user_id, release_epoch DESC, behavior_sequence DESC, event_at DESC, release
), advanced AS (
    UPDATE user_state t SET
        listed_at = CASE WHEN t.listed_at >= n.event_at + interval '1 minute' THEN n.event_at
            ELSE greatest(n.event_at, t.listed_at + interval '1 microsecond') END,
        list_behavior_at = coalesce(n.behavior_at, n.event_at),
        listed_epoch = n.release_epoch,
        listed_sequence = n.behavior_sequence
    FROM newest n
    WHERE t.user_id = n.user_id AND (t.listed_at IS NULL OR (t.listed_epoch, t.listed_sequence, t.listed_at)
        < (n.release_epoch, n.behavior_sequence, n.event_at))
    RETURNING t.user_id, t.listed_at, n.event_at, n.release, t.listed_epoch, t.listed_sequence
), placed AS MATERIALIZED (
    SELECT g.*, coalesce(a.listed_epoch, t.listed_epoch) AS newest_epoch,
           coalesce(a.listed_sequence, t.listed_sequence) AS newest_sequence,
           CASE WHEN (a.event_at, a.release) = (g.event_at, g.release) AND a.listed_at > g.event_at THEN a.listed_at
           END AS later
    FROM given g JOIN user_state t USING (user_id) LEFT JOIN advanced a USING (user_id)
    WHERE NOT EXISTS (SELECT FROM missing)
), appended AS (
    INSERT INTO retrieval_log ({", ".join(COLUMNS)})
    SELECT user_id, coalesce(later, event_at), {", ".join(COLUMNS[2:])} FROM placed
    WHERE release_epoch = 0 OR (release_epoch, behavior_sequence) >= (newest_epoch, newest_sequence)
    ORDER BY user_id, 2, release ON CONFLICT DO NOTHING RETURNING 1
)
SELECT (SELECT count(*) FROM appended) AS written, (SELECT array_agg(month) FROM missing) AS missing,
       array_agg(user_id) AS users, array_agg(later) AS later
FROM placed WHERE later IS NOT NULL
"""  # noqa: S608
_LOCK_STAGED = _LOCK.format(users="(SELECT user_id FROM staged_retrieval_log)")
_APPEND_STAGED = _APPEND.format(given=_FROM_STAGE)
_LOCK_FEW = Prepared(
    name="leadre_lock_listed", statement=_LOCK.format(users="unnest(:user_ids)"), types={"user_ids": "bigint[]"}
)
_APPEND_FEW = Prepared(name="leadre_append_lists", statement=_APPEND.format(given=_FROM_ARRAYS), types=_TYPES)

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01, from which PostgreSQL counts, in Unix microseconds."""
_INT8_OID = 20
_HEAD = np.dtype([("columns", ">i2"), ("n1", ">i4"), ("user_id", ">i8"), ("n2", ">i4"), ("event_at", ">i8")])
_NUMBER = np.dtype([("bytes", ">i4"), ("value", ">i8")])


class Appended(NamedTuple):
    """What `append` did: `written` rows are new; of the users in `known_us` the list counts from then (Unix µs)."""

    written: int
    known_us: dict[int, int]


def append(connection: Connection, user_ids: NDArray[np.int64], lists: Lists, records: Sequence[bytes]) -> Appended:
    """Write lists, and note in `user_state` what each user's newest one is. Writing them again changes nothing.

    Newest is what has the largest (release epoch, behavior sequence, time). A list that is older than the user's by the
    first two comes too late and is left out, but for lists of the past, whose epoch is 0. A list counts from when it
    was generated, or, where the list before it by this order was generated after it (two clocks), from just after that.

    Args:
        connection: in a transaction; for at most `FEW` lists one whose every statement is committed by itself will do:
            this is one.
        user_ids: whose the lists are, int64[U].
        lists: all present.
        records: the lists as `pack` gives them.

    Returns:
        How many are new: (user, time, release) was not in the log; and from when those count that do not from when
        they were generated.

    Raises:
        InvalidInput: a release or index version that PostgreSQL cannot hold.
    """
    if not records:
        return Appended(0, {})
    for name in {*lists.releases, *lists.index_versions}:
        if "\0" in name:
            raise InvalidInput("the name of a release or an index holds a NUL character, which PostgreSQL cannot store")
    generated_us = microseconds(lists.generated_at_s)
    rows, parameters = len(records), {}
    if rows <= FEW:
        statement = f"{_LOCK_FEW.sql(connection, rows=rows)}; {_APPEND_FEW.sql(connection, rows=rows)}"
        parameters = _arrays(user_ids, lists, records, generated_us)
    else:
        statement = f"{_LOCK_STAGED}; {_APPEND_STAGED}"
        _stage(connection, _copied(user_ids, lists, records, generated_us))
    found = connection.exec_driver_sql(statement, parameters).one()
    if found.missing:
        ensure_months(connection, "retrieval_log", found.missing)
        found = connection.exec_driver_sql(statement, parameters).one()
    later = zip(found.users or (), found.later or (), strict=True)
    return Appended(found.written, {user_id: (at - _EPOCH) // timedelta(microseconds=1) for user_id, at in later})


def _arrays(
    user_ids: NDArray[np.int64], lists: Lists, records: Sequence[bytes], generated_us: NDArray[np.int64]
) -> dict[str, object]:
    """Return rows as the parameters of a statement."""
    ads, edges = lists.ad_ids.tolist(), lists.offsets.tolist()
    without = np.isnan(lists.behavior_at_s)
    behaved_us = microseconds(np.where(without, 0.0, lists.behavior_at_s)).tolist()
    return {
        "user_ids": user_ids.tolist(),
        "event_at": [_time(at) for at in generated_us.tolist()],
        "release": list(lists.releases),
        "index_version": list(lists.index_versions),
        "behavior_at": [None if none else _time(at) for none, at in zip(without.tolist(), behaved_us, strict=True)],
        "ads": [f"{{{','.join(map(str, ads[begin:end]))}}}" for begin, end in pairwise(edges)],
        "record": [psycopg2.Binary(record) for record in records],
        "epochs": lists.release_epochs.tolist(),
        "sequences": lists.behavior_sequences.tolist(),
    }


def _time(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def _stage(connection: Connection, rows: bytes) -> None:
    connection.exec_driver_sql(_STAGE)
    with closing(connection.connection.cursor()) as cursor:
        try:
            cursor.copy_expert(_COPY, BytesIO(rows))
        except psycopg2.Error as error:  # SQLAlchemy does not see what goes past it; `transaction` tells them apart
            raise DBAPIError.instance(_COPY, None, error, psycopg2.Error) from error


def size(connection: Connection) -> int:
    """Return how many lists it holds."""
    return connection.scalar(select(func.count()).select_from(retrieval_log)) or 0


def newest(
    connection: Connection, user_ids: Sequence[int], *, at: datetime | None = None
) -> dict[int, Mapping[str, Any]]:
    """Return each user's newest row, as `append` has it, `COLUMNS` by name; users without one are left out.

    Args:
        connection: any.
        user_ids: whose.
        at: leave later rows out; None takes all.
    """
    statement = select(*(retrieval_log.c[name] for name in COLUMNS)).where(retrieval_log.c.user_id.in_(user_ids))
    if at is not None:
        statement = statement.where(retrieval_log.c.event_at <= at)
    fence = text(f"{FENCE.format(record='record')} DESC")
    statement = statement.ext(distinct_on(retrieval_log.c.user_id)).order_by(
        retrieval_log.c.user_id, fence, retrieval_log.c.event_at.desc()
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
    heads["columns"], heads["n1"], heads["n2"] = len(_STAGED), 8, 8
    heads["user_id"], heads["event_at"] = user_ids, generated_us - _POSTGRES_EPOCH_US
    without = np.isnan(lists.behavior_at_s)
    behaved = _numbers(microseconds(np.where(without, 0.0, lists.behavior_at_s)) - _POSTGRES_EPOCH_US)
    ads = _numbers(lists.ad_ids)
    fences = _numbers(np.stack((lists.release_epochs, lists.behavior_sequences), axis=1).reshape(-1))
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
            fences[u * 24 : u * 24 + 24],
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
    encoded = name.encode()
    return len(encoded).to_bytes(4, "big") + encoded
