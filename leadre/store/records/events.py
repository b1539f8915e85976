"""Events: behaviors and impressions, written once however often they arrive, and read as arrays. LEADRE §3.1, §4.2.1.

A row's id is a hash of the row, so a repeated write changes nothing. A user's order: (occurred_at, ordinal).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects.postgresql import insert

from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain, Impression
from leadre.errors import InvalidInput
from leadre.store.records.bulk import ROW, Staged, merge, staged
from leadre.store.records.tables import behaviors as behaviors_table
from leadre.store.records.tables import impressions as impressions_table

DOMAINS = tuple(Domain)
"""`Sequences.domains` holds positions in this."""

ACTIONS = tuple(Action)
"""`Sequences.actions` holds positions in this."""

_BEHAVIOR = ("behavior_id", "user_id", "domain", "action", "item_id", "occurred_at", "ordinal")
_IMPRESSION = ("impression_id", "user_id", "ad_id", "occurred_at", "ecpm", "clicked", "converted", "simulated")
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
    connection: Connection, rows: Iterable[Behavior], *, unknown: Literal["accept", "refuse"] = "accept"
) -> int:
    """Write behaviors in bulk.

    Args:
        connection: in a transaction.
        rows: any number, in any order.
        unknown: whether a behavior of a user, ad or content item that the catalog does not hold is an error.

    Returns:
        How many are new.

    Raises:
        InvalidInput: a bad value, or an unknown user or item; with its row.
    """
    with staged(connection, behaviors_table, _BEHAVIOR, (_behavior_row(row) for row in rows)) as source:
        if unknown == "refuse":
            _refuse_unknown(connection, source, "user_id", "users", "user_id")
            _refuse_unknown(connection, source, "item_id", "ads", "ad_id", only="s.domain = 'ad'")
            _refuse_unknown(connection, source, "item_id", "content_items", "content_id", only="s.domain = 'content'")
        return merge(connection, behaviors_table, source, key=["behavior_id"], on_conflict="nothing")


def upsert_impressions(
    connection: Connection, rows: Iterable[Impression], *, unknown: Literal["accept", "refuse"] = "accept"
) -> int:
    """Write impressions in bulk; one that is there takes the new eCPM and outcome. See `upsert_behaviors`."""
    with staged(connection, impressions_table, _IMPRESSION, (_impression_row(row) for row in rows)) as source:
        if unknown == "refuse":
            _refuse_unknown(connection, source, "user_id", "users", "user_id")
            _refuse_unknown(connection, source, "ad_id", "ads", "ad_id")
        return merge(connection, impressions_table, source, key=["impression_id"], on_conflict="update")


def append_behaviors(connection: Connection, rows: Sequence[Behavior]) -> None:
    """Write a few behaviors as they happen, up to some thousands: no temporary table, but as `upsert_behaviors`."""
    if rows:
        values = [dict(zip(_BEHAVIOR, _behavior_row(row), strict=True)) for row in rows]
        values.sort(key=lambda value: value["behavior_id"])  # type: ignore[arg-type,return-value]  # one order: no deadlocks
        connection.execute(insert(behaviors_table).on_conflict_do_nothing(), values)


def read_sequences(
    connection: Connection,
    *,
    which: Literal["positive", "all"] = "positive",
    domains: Collection[Domain] = DOMAINS,
    until: datetime | None = None,
) -> Sequences:
    """Return every user's behaviors, for training and evaluation; a user without any is left out.

    Args:
        connection: in a transaction.
        which: positive behaviors only (what prompts are made of), or all.
        domains: which domains.
        until: later behaviors are left out: clocks that ran ahead, or a present in the data's past. None: all count.
    """
    query = """
        SELECT user_id, item_id, array_position(%s::text[], domain) - 1, array_position(%s::text[], action) - 1,
               extract(epoch FROM occurred_at)::float8, ordinal
        FROM behaviors WHERE domain = ANY(%s) AND action = ANY(%s) AND occurred_at <= %s
        ORDER BY user_id, occurred_at, ordinal, behavior_id
    """
    actions = _POSITIVE if which == "positive" else list(ACTIONS)
    columns = ("user", "item", "domain", "action", "time", "ordinal")
    types = ("int64", "int64", "uint8", "uint8", "float64", "int64")
    with closing(connection.connection.cursor()) as cursor, TemporaryFile() as file:
        parameters = [[str(word) for word in words] for words in (DOMAINS, ACTIONS, domains, actions)]
        select_rows = cursor.mogrify(query, [*parameters, "infinity" if until is None else until]).decode()
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


def stale_users(connection: Connection, *, now: datetime, limit: int) -> list[int]:
    """Return users whose newest positive behavior is newer than the one their newest list was made from.

    For the reconciler: what a lost queue entry left behind is found here, by an index on `user_state`. A list made from
    no behavior at all counts as made from everything before it was generated.

    Args:
        connection: in a transaction.
        now: a user whose newest behavior is later is not stale yet.
        limit: at most so many, those with the newest behavior first.
    """
    # The first condition is that of the index; the slack of the second is for times that went through Unix seconds.
    query = text("""
        SELECT user_id FROM user_state
        WHERE (listed_at IS NULL OR newest_behavior_at > list_behavior_at)
        AND (listed_at IS NULL OR newest_behavior_at > list_behavior_at + interval '1 millisecond')
        AND newest_behavior_at <= :now
        ORDER BY newest_behavior_at DESC, user_id LIMIT :limit
    """)
    return list(connection.scalars(query, {"now": now, "limit": limit}))


def _refuse_unknown(
    connection: Connection, source: Staged, column: str, catalog: str, key: str, *, only: str = "true"
) -> None:
    query = f"""
        SELECT s.{ROW}, s.{column} FROM {source.name} s
        WHERE {only} AND NOT EXISTS (SELECT FROM {catalog} c WHERE c.{key} = s.{column}) ORDER BY 1 LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    if found := connection.execute(text(query)).one_or_none():
        row, value = found
        raise InvalidInput(f"{value} is not in {catalog}; add it there, or leave the row out", row=row, column=column)


def _behavior_row(row: Behavior) -> tuple[object, ...]:
    values = (row.user_id, row.domain.value, row.action.value, row.item_id, row.occurred_at, row.ordinal)
    words = (row.domain.value, str(row.item_id), row.action.value, time_word(row.occurred_at), str(row.ordinal))
    return (event_id(str(row.user_id), *words), *values)


def _impression_row(row: Impression) -> tuple[object, ...]:
    values = (row.user_id, row.ad_id, row.occurred_at, row.ecpm, row.clicked, row.converted, row.simulated)
    return (event_id(str(row.user_id), str(row.ad_id), time_word(row.occurred_at)), *values)


def time_word(at: datetime) -> str:
    """Return an aware time as `event_id` takes it: the same word for one instant, whatever its offset."""
    return repr(at.timestamp())


def event_id(*words: str) -> int:
    """Return the id of a behavior (user, domain, item, action, time, ordinal) or impression (user, ad, time).

    63 bits of BLAKE2b; among a billion rows some two collide by chance (5 %), which loses one row.
    """
    return int.from_bytes(hashlib.blake2b("|".join(words).encode(), digest_size=8).digest(), "big") >> 1
