"""Rehydration: the lists of all users from the retrieval log to an online store that was wiped.

LEADRE §4.4.1. PostgreSQL knows what was inferred, Redis holds a copy of it. A mark in both tells whether the copy is
whole: a Redis that was flushed, replaced or started anew does not have it (docs/adr/0016). What is written is each
user's newest list, under the fence of all writers, so that whoever writes meanwhile is not set back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import Connection, Engine, text

from leadre.store.features.materialization.shards import copy_online
from leadre.store.features.materialization.view import View
from leadre.store.records.database import transaction

MARKER = "{leadre:refresh}:marker"
"""Key of the mark in the online store."""
RANGE_USERS = 10_000
"""Users after which the progress is noted (ours): a second of work or less, which is what a killed process loses."""

REHYDRATED = Counter("leadre_rehydrated_total", "Lists written anew to an online store that was wiped.")

_PROGRESS = "{leadre:refresh}:rehydrated"
# In one step: where the store was wiped once more, the progress is gone, and what it says is lost with it.
_ADVANCE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then redis.call('DEL', KEYS[1]) return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""


def is_whole(database: Engine, online: Any) -> bool:
    """Return whether an online store has the database's mark. Two short questions.

    Raises:
        Unavailable: PostgreSQL does not answer.
        redis.RedisError: Redis does not answer.
    """
    with transaction(database) as connection:
        marker = _marker(connection)
    return marker is not None and online.get(MARKER) == marker.encode()


def distrust(database: Engine, online: Any, *, marker: UUID) -> None:
    """Give the database another mark, so that this online store, and any other, counts as wiped. Raises as `is_whole`.

    Args:
        database: the system of record.
        online: a client of the online store's Redis.
        marker: one that was never used.
    """
    with transaction(database) as connection:
        statement = text(
            "INSERT INTO online_marker (marker) VALUES (:marker) "
            "ON CONFLICT (online) DO UPDATE SET marker = excluded.marker, set_at = now()"
        )
        connection.execute(statement, {"marker": marker})
    online.delete(MARKER)


def rehydrate_lists(
    database: Engine,
    online: Any,
    view: View,
    *,
    since: datetime,
    marker: UUID,
    before_marking: Callable[[], object],
    report: Callable[[int], object] = lambda _: None,
) -> int | None:
    """Write the newest list of every user to a wiped online store, and mark it as whole. A killed run is gone on with.

    Args:
        database: the system of record.
        online: a client of the online store's Redis.
        view: the feature view of the lists.
        since: older lists stay away: readers take them for absent.
        marker: the mark, if the database has none yet.
        before_marking: what else is to be done before the store counts as whole.
        report: told the lists written, from time to time.

    Returns:
        Lists written by this run; None when another process is at it.

    Raises:
        FeatureRowMismatch: lists did not arrive.
        Unavailable: PostgreSQL does not answer.
        redis.RedisError: Redis does not answer, or refuses.
    """
    with transaction(database) as connection:
        made = text("INSERT INTO online_marker (marker) VALUES (:marker) ON CONFLICT DO NOTHING")
        connection.execute(made, {"marker": marker})
        mark = cast(str, _marker(connection))
    with transaction(database) as connection:  # its end, or that of the process, lets the lock go
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('leadre rehydrate'))")):
            return None
        lists, noted = 0, (online.get(_PROGRESS) or b"").decode()
        if noted.partition(" ")[0] != mark:
            online.delete(_PROGRESS)
            noted = ""
        while True:
            after = int(noted.partition(" ")[2]) if noted else None
            upto = _range_end(connection, after, since)
            if upto is None:
                before_marking()
            else:
                copied, _ = copy_online(connection, online, view, copy=_copy(after, upto, since))
                lists += copied
                REHYDRATED.inc(copied)
                report(lists)
            step = "" if upto is None else f"{mark} {upto}"
            if not online.eval(_ADVANCE, 2, _PROGRESS, MARKER, noted, step, mark):
                noted = ""  # wiped once more
            elif upto is None:
                return lists
            else:
                noted = step


def _marker(connection: Connection) -> str | None:
    found: UUID | str | None = connection.scalar(text("SELECT marker::text FROM online_marker"))
    return None if found is None else str(found)


def _range_end(connection: Connection, after: int | None, since: datetime) -> int | None:
    """Return the last user of the next range; None when there is nobody left."""
    query = text(
        "SELECT max(user_id) FROM (SELECT user_id FROM user_state WHERE listed_at > :since "
        "AND user_id > coalesce(:after, -9223372036854775808) ORDER BY user_id LIMIT :users) AS range"
    )
    found: int | None = connection.scalar(query, {"since": since, "after": after, "users": RANGE_USERS})
    return found


def _copy(after: int | None, upto: int, since: datetime) -> str:
    """Return the COPY of the newest lists of a range of users, as `View.online` reads it.

    Two releases may have made lists of one user in one instant: both are sent, and the fence decides.
    """
    above = "" if after is None else f"s.user_id > {after:d} AND "
    return (
        "COPY (SELECT s.user_id, l.event_at, l.record FROM user_state s JOIN retrieval_log l "  # noqa: S608 - our names
        f"ON l.user_id = s.user_id AND l.event_at = s.listed_at WHERE {above}s.user_id <= {upto:d} "
        f"AND l.event_at > '{since.isoformat()}' ORDER BY s.user_id) TO STDOUT (FORMAT binary)"
    )
