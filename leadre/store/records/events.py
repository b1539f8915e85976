"""Events: behaviors and impressions, written once however often they arrive, and read as arrays. LEADRE §3.1, §4.2.1.

A user's order: (occurred_at, ordinal).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Connection, func, select, text

from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain, Impression
from leadre.store.records.known.staging import behavior_row, staged_behaviors, staged_impressions
from leadre.store.records.known.writes import BEHAVIOR, append, append_free, write_import
from leadre.store.records.tables import behaviors as behaviors_table

DOMAINS = tuple(Domain)
"""`Sequences.domains` holds positions in this."""

ACTIONS = tuple(Action)
"""`Sequences.actions` holds positions in this."""

_POSITIVE = sorted(POSITIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """All users' behaviors, flat: those of `users[i]` are [offsets[i], offsets[i + 1]), oldest first.

    Args:
        users: int64[U], ascending.
        offsets: int64[U + 1].
        item_ids: int64[B], ad or content ids by domain.
        domains: uint8[B], positions in `DOMAINS`.
        actions: uint8[B], positions in `ACTIONS`.
        occurred_at_s: float64[B], Unix seconds.
        ordinals: int64[B].
    """

    users: NDArray[np.int64]
    offsets: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    domains: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    occurred_at_s: NDArray[np.float64]
    ordinals: NDArray[np.int64]


def upsert_behaviors(
    connection: Connection,
    rows: Iterable[Behavior],
    *,
    arrived_at: datetime,
    unknown: Literal["accept", "refuse"] = "accept",
) -> int:
    """Import behaviors: `staged_behaviors`, then `write_import`; see there. Returns how many are new."""
    with staged_behaviors(connection, rows, unknown=unknown) as source:
        return write_import(connection, behaviors=source, arrived_at=arrived_at).behaviors


def upsert_impressions(
    connection: Connection,
    rows: Iterable[Impression],
    *,
    arrived_at: datetime,
    unknown: Literal["accept", "refuse"] = "accept",
) -> int:
    """Import impressions; one that is there takes the new eCPM and outcome. Returns how many are new or changed."""
    with staged_impressions(connection, rows, unknown=unknown) as source:
        return write_import(connection, impressions=source, arrived_at=arrived_at).impressions


def append_behaviors(connection: Connection, rows: Sequence[Behavior], *, arrived_at: datetime) -> int:
    """Write a few behaviors as they happen, up to some thousands. Returns how many are new.

    Args:
        connection: in a transaction.
        rows: of any users.
        arrived_at: when they came here: from then on they are known.
    """
    return append(connection, _columns(rows), arrived_at=arrived_at) if rows else 0


def append_behaviors_of_free_users(
    connection: Connection, rows: Sequence[Behavior], *, arrived_at: datetime
) -> tuple[int, frozenset[int]]:
    """Write as `append_behaviors` does, but leave out users whom another transaction holds, such as an import.

    Returns:
        How many behaviors are new, and the users left out.
    """
    return append_free(connection, _columns(rows), arrived_at=arrived_at) if rows else (0, frozenset())


def _columns(rows: Sequence[Behavior]) -> dict[str, Sequence[object]]:
    return dict(zip(BEHAVIOR, zip(*(behavior_row(row) for row in rows), strict=True), strict=True))


def read_sequences(
    connection: Connection,
    *,
    which: Literal["positive", "all"] = "positive",
    domains: Collection[Domain] = DOMAINS,
    until: datetime | None = None,
    user_ids: Collection[int] | None = None,
) -> Sequences:
    """Return every user's behaviors, for training and evaluation; a user without any is left out.

    Args:
        connection: in a transaction.
        which: positive behaviors only (what prompts are made of), or all.
        domains: which domains.
        until: later behaviors are left out: clocks that ran ahead, or a present in the data's past. None: all count.
        user_ids: only these users; None: all.
    """
    these = "true" if user_ids is None else "user_id = ANY(%s)"
    query = f"""
        SELECT user_id, item_id, array_position(%s::text[], domain) - 1, array_position(%s::text[], action) - 1,
               extract(epoch FROM occurred_at)::float8, ordinal
        FROM behaviors WHERE domain = ANY(%s) AND action = ANY(%s) AND occurred_at <= %s AND {these}
        ORDER BY user_id, occurred_at, ordinal, domain, behavior_id
    """  # noqa: S608 - two words of ours
    actions = _POSITIVE if which == "positive" else list(ACTIONS)
    columns = ("user", "item", "domain", "action", "time", "ordinal")
    types = ("int64", "int64", "uint8", "uint8", "float64", "int64")
    with closing(connection.connection.cursor()) as cursor, TemporaryFile() as file:
        parameters: list[Any] = [[str(word) for word in words] for words in (DOMAINS, ACTIONS, domains, actions)]
        values = [*parameters, "infinity" if until is None else until]
        values += [] if user_ids is None else [[int(user_id) for user_id in user_ids]]
        select_rows = cursor.mogrify(query, values).decode()
        cursor.copy_expert(f"COPY ({select_rows}) TO STDOUT (FORMAT csv)", file)
        if file.tell() == 0:
            read = {column: np.empty(0, dtype) for column, dtype in zip(columns, types, strict=True)}
        else:
            file.seek(0)
            parsed = csv.read_csv(
                file,
                read_options=csv.ReadOptions(column_names=columns),
                convert_options=csv.ConvertOptions(column_types=dict(zip(columns, types, strict=True))),
            )
            read = {column: parsed[column].to_numpy().copy() for column in columns}  # writable
    users, starts = np.unique(read["user"], return_index=True)
    return Sequences(
        users=users,
        offsets=np.append(starts, len(read["user"])).astype(np.int64),
        item_ids=read["item"],
        domains=read["domain"],
        actions=read["action"],
        occurred_at_s=read["time"],
        ordinals=read["ordinal"],
    )


def newest_positive_behavior(connection: Connection, user_ids: Collection[int]) -> dict[int, datetime]:
    """Return when each user last showed interest; users who never did are left out."""
    columns = behaviors_table.c
    query = (
        select(columns.user_id, func.max(columns.occurred_at))
        .where(columns.user_id.in_([int(user_id) for user_id in user_ids]), columns.action.in_(_POSITIVE))
        .group_by(columns.user_id)
    )
    return {user_id: newest for user_id, newest in connection.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def most_active_user(connection: Connection, *, now: datetime) -> int | None:
    """Return a known user with many positive behaviors in the 90 days before `now`; None when nobody has any."""
    query = text("""
        SELECT user_id FROM behaviors JOIN users USING (user_id)
        WHERE action = ANY(:positive) AND occurred_at <= :now AND occurred_at > :now - interval '90 days'
        GROUP BY user_id ORDER BY count(DISTINCT domain) DESC, count(*) DESC, user_id LIMIT 1
    """)
    found: int | None = connection.scalar(query, {"positive": _POSITIVE, "now": now})
    return found


def recent_users(connection: Connection, *, now: datetime, limit: int) -> list[int]:
    """Return at most `limit` known users with positive behaviors before `now`, those with the newest first."""
    query = text("""
        SELECT user_id FROM behaviors JOIN users USING (user_id) WHERE action = ANY(:positive) AND occurred_at <= :now
        GROUP BY user_id ORDER BY max(occurred_at) DESC, user_id LIMIT :limit
    """)
    return list(connection.scalars(query, {"positive": _POSITIVE, "now": now, "limit": limit}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A stale user. `behaved_at`: its newest positive behavior. `listed`: whether it ever had a list."""

    user_id: int
    behaved_at: datetime
    listed: bool


def stale_page(
    connection: Connection, *, now: datetime, limit: int, settled: datetime | None = None, after: Stale | None = None
) -> list[Stale]:
    """Return some users with positive behaviors that their newest list was not made from, the longest waiting first.

    For the reconciler: what a lost queue entry left behind is found here, by an index on `user_state`.

    Args:
        connection: in a transaction.
        now: a user whose newest behavior is later is not stale yet.
        limit: at most so many.
        settled: users to whom something happened after this are left out.
        after: go on behind this one; None begins anew.
    """
    behind = "" if after is None else "AND (newest_behavior_at, user_id) > (:behaved_at, :user_id)"
    query = text(f"""
        SELECT user_id, newest_behavior_at AS behaved_at, listed_at IS NOT NULL AS listed FROM user_state
        WHERE behavior_sequence > listed_sequence AND newest_behavior_at <= :now
        AND changed_at <= coalesce(CAST(:settled AS timestamptz), 'infinity') {behind}
        ORDER BY newest_behavior_at, user_id LIMIT :limit
    """)  # noqa: S608 - our own words
    values: dict[str, Any] = {"now": now, "settled": settled, "limit": limit}
    if after is not None:
        values |= {"behaved_at": after.behaved_at, "user_id": after.user_id}
    return [Stale(**row) for row in connection.execute(query, values).mappings()]
