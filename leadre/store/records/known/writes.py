"""The one place where behaviors and impressions are written: with them, from when they are known, and the user's state.

LEADRE §4.2.1, §4.4.1. docs/adr/0005 has the rule. A user's row of `user_state` is locked first, in the order of ids:
writers and summaries of one user follow one another, and no two transactions wait for each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from leadre.domain.behavior import POSITIVE
from leadre.errors import InvalidInput
from leadre.store.records.bulk import ROW, Staged

BEHAVIOR = {
    "behavior_id": "bigint",
    "user_id": "bigint",
    "domain": "text",
    "action": "text",
    "item_id": "bigint",
    "occurred_at": "timestamptz",
    "ordinal": "bigint",
}
"""Columns of a behavior that is written, and their SQL types."""

IMPRESSION = ("impression_id", "user_id", "ad_id", "occurred_at", "ecpm", "clicked", "converted", "simulated")
"""Columns of an impression that is written."""

_STATES = """
    INSERT INTO user_state (user_id, changed_at)
    SELECT user_id, :arrived_at FROM {users} ORDER BY user_id ON CONFLICT DO NOTHING
"""

_LOCK = """
    SELECT count(*) FROM (
        SELECT FROM user_state s JOIN {users} USING (user_id) ORDER BY s.user_id FOR NO KEY UPDATE OF s
    ) AS locked
"""

_NEW_USERS = """
    SELECT user_id FROM {users} WHERE NOT EXISTS (SELECT FROM user_state s WHERE s.user_id = u.user_id)
    ORDER BY user_id
"""
_USERS = "(SELECT DISTINCT user_id FROM unnest(CAST(:user_id AS bigint[])) AS of (user_id)) AS u"
_LOCK_FREE = """
    SELECT s.user_id FROM user_state s JOIN {users} USING (user_id)
    ORDER BY s.user_id FOR NO KEY UPDATE OF s SKIP LOCKED
"""
_NEW_USER_WAIT = "5ms"
_MOST_WAITS = 60
"""Waits for new users whom another transaction is inserting, in one `append_free` (ours): .3 s in all."""
_LOCK_TIMEOUT = "55P03"

# A statement after the lock sees what whoever held it before has settled.
_KNOWN = """
    JOIN (SELECT user_id, greatest(summarized_until, (SELECT until FROM settled)) AS until FROM user_state) s
    USING (user_id)
"""
_ARRIVED = "greatest(:arrived_at, r.occurred_at, s.until + interval '1 microsecond')"
_IMPORTED = f"""
    CASE WHEN u.newest <= s.until THEN {_ARRIVED}
         ELSE greatest(u.newest, r.occurred_at, s.until + interval '1 microsecond') END
"""

_COUNTED = """
, state AS (
    UPDATE user_state s SET
        written = s.written + w.rows,
        changed_at = greatest(s.changed_at, :arrived_at),
        newest_behavior_at = greatest(s.newest_behavior_at, w.newest),
        behavior_sequence = s.behavior_sequence + w.positive
    FROM (
        SELECT user_id, count(*) AS rows, {positive} AS positive, {newest} AS newest FROM written GROUP BY user_id
    ) w
    WHERE w.user_id = s.user_id RETURNING w.rows
)
SELECT coalesce(sum(rows), 0) FROM state
"""

# By user and time, so that a user's rows lie together where summaries read them.
_BEHAVIORS = """
WITH written AS (
    INSERT INTO behaviors ({columns}, known_at)
    SELECT {values}, {known} FROM {source} r {state} ORDER BY r.user_id, r.occurred_at, r.ordinal
    ON CONFLICT DO NOTHING RETURNING user_id, occurred_at, action
)
""" + _COUNTED.format(  # noqa: S608 - names of ours
    positive="count(*) FILTER (WHERE action = ANY(:positive))",
    newest="max(occurred_at) FILTER (WHERE action = ANY(:positive))",
)

# A click that is told later ends the dislike that the impression was; one that is taken back begins it anew.
_IMPRESSIONS = """
WITH written AS (
    INSERT INTO impressions AS t ({columns}, known_at)
    SELECT {values}, {known}
    FROM (SELECT DISTINCT ON (impression_id) * FROM {source} ORDER BY impression_id, {row} DESC) r {state}
    ORDER BY r.user_id, r.occurred_at
    ON CONFLICT (impression_id) DO UPDATE SET
        ecpm = excluded.ecpm, clicked = excluded.clicked, converted = excluded.converted,
        simulated = excluded.simulated, created_at = now(),
        known_at = CASE WHEN (t.clicked OR t.converted) AND NOT (excluded.clicked OR excluded.converted)
                        THEN excluded.known_at ELSE t.known_at END,
        outcome_at = CASE WHEN NOT (excluded.clicked OR excluded.converted) THEN NULL
                          WHEN t.clicked OR t.converted THEN t.outcome_at ELSE excluded.known_at END
    WHERE (t.ecpm, t.clicked, t.converted, t.simulated)
          IS DISTINCT FROM (excluded.ecpm, excluded.clicked, excluded.converted, excluded.simulated)
    RETURNING user_id
)
""" + _COUNTED.format(positive="0", newest="NULL::timestamptz")  # noqa: S608 - names of our own tables and columns


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """How many behaviors are new, and how many impressions are new or changed."""

    behaviors: int = 0
    impressions: int = 0


def append(connection: Connection, values: Mapping[str, Sequence[object]], *, arrived_at: datetime) -> int:
    """Write a few behaviors as they happen. They are known from when they arrived, or happened if that is later.

    Args:
        connection: in a transaction.
        values: equally long lists by the names of `BEHAVIOR`.
        arrived_at: when they came here.

    Returns:
        How many are new.
    """
    _lock(connection, _USERS, {"user_id": list(values["user_id"]), "arrived_at": arrived_at})
    return _append_locked(connection, values, arrived_at=arrived_at)


def append_free(
    connection: Connection, values: Mapping[str, Sequence[object]], *, arrived_at: datetime
) -> tuple[int, frozenset[int]]:
    """Write as `append` does, but leave out the users whom another transaction holds, such as an import.

    Nobody is waited for, but for users without any row yet, whom another transaction may be inserting: .3 s at most.

    Returns:
        How many behaviors are new, and the users left out.
    """
    asked = {"user_id": list(values["user_id"]), "arrived_at": arrived_at}
    if new := list(connection.scalars(text(_NEW_USERS.format(users=_USERS)), asked)):
        connection.execute(text(f"SET LOCAL lock_timeout = '{_NEW_USER_WAIT}'"))
        _insert_states(connection, new, arrived_at=arrived_at, waits=_MOST_WAITS)
        connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    free = frozenset(connection.scalars(text(_LOCK_FREE.format(users=_USERS)), asked))
    busy = frozenset(cast("list[int]", asked["user_id"])) - free
    if busy:
        kept = [place for place, user_id in enumerate(values["user_id"]) if user_id in free]
        values = {name: [of[place] for place in kept] for name, of in values.items()}
    return _append_locked(connection, values, arrived_at=arrived_at), busy


def write_import(
    connection: Connection,
    *,
    arrived_at: datetime,
    behaviors: Staged | None = None,
    impressions: Staged | None = None,
) -> EventCounts:
    """Write staged rows of the past, each once; an impression that is there takes the new eCPM and outcome.

    What an import says of a user is known from the newest of his rows in it, as if the system had run then. Where that
    is settled already it is known from `arrived_at`, like everything that comes late. A row of a time after
    `arrived_at` is known from its own.

    Args:
        connection: the one that staged them.
        arrived_at: when the import takes place.
        behaviors: with the columns of `BEHAVIOR`.
        impressions: with those of `IMPRESSION`.

    Raises:
        InvalidInput: a row breaks a constraint.
    """
    sources = [source.name for source in (behaviors, impressions) if source is not None]
    rows = " UNION ALL ".join(f"SELECT user_id, occurred_at FROM {name}" for name in sources)  # noqa: S608 - our names
    parameters = {"arrived_at": arrived_at}
    connection.execute(text("DROP TABLE IF EXISTS pg_temp.written_users"))
    connection.execute(
        text(
            "CREATE TEMPORARY TABLE written_users ON COMMIT DROP AS "  # noqa: S608 - names of our own tables
            "SELECT user_id, max(occurred_at) FILTER (WHERE occurred_at <= :arrived_at) AS newest "
            f"FROM ({rows}) AS rows GROUP BY user_id ORDER BY user_id"
        ),
        parameters,
    )
    connection.execute(text("ANALYZE written_users"))
    _lock(connection, "written_users u", parameters)
    state = f"{_KNOWN} JOIN written_users u USING (user_id)"
    counts = {
        table: _write(connection, table, source.name, known=_IMPORTED, state=state, parameters=parameters)
        for table, source in (("behaviors", behaviors), ("impressions", impressions))
        if source is not None
    }
    connection.execute(text("DROP TABLE written_users"))
    return EventCounts(**counts)


def _lock(connection: Connection, users: str, parameters: Mapping[str, object]) -> None:
    for statement in (_STATES, _LOCK):
        connection.execute(text(statement.format(users=users)), parameters)


def _insert_states(connection: Connection, user_ids: Sequence[int], *, arrived_at: datetime, waits: int) -> int:
    """Insert states of new users but of those whom others are inserting; return the waits that are left."""
    if not waits:
        return 0
    try:
        with connection.begin_nested():
            asked = {"user_id": list(user_ids), "arrived_at": arrived_at}
            connection.execute(text(_STATES.format(users=_USERS)), asked)
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) != _LOCK_TIMEOUT:
            raise
        waits, half = waits - 1, len(user_ids) // 2
        for part in (user_ids[:half], user_ids[half:]) if half else ():
            waits = _insert_states(connection, part, arrived_at=arrived_at, waits=waits)
    return waits


def _append_locked(connection: Connection, values: Mapping[str, Sequence[object]], *, arrived_at: datetime) -> int:
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in BEHAVIOR.items())
    source = f"(SELECT * FROM unnest({arrays}) AS of ({', '.join(BEHAVIOR)}))"  # noqa: S608 - names of ours
    parameters = {**{name: list(of) for name, of in values.items()}, "arrived_at": arrived_at}
    return _write(connection, "behaviors", source, known=_ARRIVED, state=_KNOWN, parameters=parameters)


def _write(
    connection: Connection, table: str, source: str, *, known: str, state: str, parameters: Mapping[str, object]
) -> int:
    statement, columns = {"behaviors": (_BEHAVIORS, BEHAVIOR), "impressions": (_IMPRESSIONS, IMPRESSION)}[table]
    parts = {
        "columns": ", ".join(columns),
        "values": ", ".join(f"r.{column}" for column in columns),
        "source": source,
        "known": known,
        "state": state,
        "row": ROW,
    }
    try:
        written = connection.scalar(text(statement.format(**parts)), {**parameters, "positive": sorted(POSITIVE)})
    except (IntegrityError, DataError) as error:
        raise InvalidInput(f"PostgreSQL refuses a row for {table}: {error.orig}") from None
    return int(written or 0)
