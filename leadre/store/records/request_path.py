"""What the request path asks of the system of record, short questions with short answers; and what it reports.

LEADRE §4.4.1 (ARPU groups order refreshes), §5.3 (LEADRE's branch runs beside others, such as popularity). Reported
behaviors come in batches out of the stream (leadre.pipelines.ingest), or with a request that waits for PostgreSQL
(`store_now`). What is there already is not written again, so both may repeat themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import OperationalError

from leadre.domain.behavior import POSITIVE, Behavior, Domain
from leadre.errors import Unavailable
from leadre.store.records.catalog import may_be_shown
from leadre.store.records.database import transaction
from leadre.store.records.events import append_behaviors, append_behaviors_of_free_users
from leadre.store.records.tables import ads, behaviors, content_items, users

_STATEMENT_TIMEOUT = "57014"
# Asked where the behaviors were written: a list that was made from all of them meanwhile needs no other.
_STALE = text("""
    SELECT s.user_id, coalesce(u.arpu_group, 0), s.listed_at IS NULL
    FROM user_state s LEFT JOIN users u USING (user_id)
    WHERE s.user_id = ANY(:user_ids) AND s.behavior_sequence > s.listed_sequence ORDER BY s.user_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A user with positive behaviors that the newest list does not know: ARPU group, and whether there is none yet."""

    user_id: int
    group: int
    never_listed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What the system of record said to behaviors.

    Args:
        new: how many it did not have yet.
        unknown: how many are of items that the catalog does not hold, by domain.
        stale: the users among theirs who want a refresh.
        busy: users whose behaviors were not written, because another transaction holds them.
    """

    new: int
    unknown: Mapping[Domain, int]
    stale: tuple[Stale, ...]
    busy: frozenset[int] = frozenset()


def arpu_groups(connection: Connection, user_ids: Sequence[int]) -> list[int]:
    """Return each user's ARPU group, 0 (lowest) to 24; 0 for users that are unknown or not grouped yet."""
    query = select(users.c.user_id, users.c.arpu_group).where(
        users.c.user_id.in_([int(user_id) for user_id in user_ids]), users.c.arpu_group.is_not(None)
    )
    groups: dict[int, int] = {user_id: group for user_id, group in connection.execute(query)}  # noqa: C416 - rows
    return [groups.get(user_id, 0) for user_id in user_ids]


def unknown_items(connection: Connection, rows: Sequence[Behavior]) -> dict[Domain, int]:
    """Return how many of a few behaviors are of an ad or content item that the catalog does not hold, by domain."""
    unknown = dict.fromkeys(Domain, 0)
    for domain, key in ((Domain.AD, ads.c.ad_id), (Domain.CONTENT, content_items.c.content_id)):
        if items := [row.item_id for row in rows if row.domain is domain]:
            known = set(connection.scalars(select(key).where(key == func.any(items))))
            unknown[domain] = sum(item not in known for item in items)
    return unknown


def popular_ads(connection: Connection, *, now: datetime, days: float, limit: int) -> list[int]:
    """Return the ads with the most clicks and conversions in the `days` before `now`, most first.

    One list for everybody: only ads that may be shown now, and to everybody, are in it.
    """
    columns = behaviors.c
    times = func.count().label("times")
    query = (
        select(columns.item_id)
        .join(ads, ads.c.ad_id == columns.item_id)
        .where(
            columns.domain == Domain.AD.value,
            columns.action.in_(sorted(POSITIVE)),
            columns.occurred_at > now - timedelta(days=days),
            columns.occurred_at <= now,
            may_be_shown(now),
            ads.c.targeting == {},
        )
        .group_by(columns.item_id)
        .order_by(times.desc(), columns.item_id)
        .limit(limit)
    )
    return list(connection.scalars(query))


def store_free(connection: Connection, rows: Sequence[Behavior], *, arrived_at: datetime) -> Arrivals:
    """Write behaviors of many users, but leave out the users whom another transaction holds, such as an import.

    Args:
        connection: in a transaction.
        rows: up to some thousands.
        arrived_at: from when they are known.

    Raises:
        InvalidInput: PostgreSQL refuses one of them; the transaction is lost.
    """
    new, busy = append_behaviors_of_free_users(connection, rows, arrived_at=arrived_at)
    return _arrivals(connection, [row for row in rows if row.user_id not in busy], new=new, busy=busy)


def store_now(database: Engine, rows: Sequence[Behavior], *, arrived_at: datetime) -> Arrivals:
    """Write the behaviors of a request and commit; they are safe when this returns. It blocks.

    Whoever holds their user is waited for as long as `database` waits for locks: connect with short times
    (`leadre.store.records.database.connect`), since a caller waits too.

    Raises:
        Unavailable: PostgreSQL does not answer, or not in time: whether they were written is not known, and a
            repetition is harmless.
        InvalidInput: PostgreSQL refuses one of them.
    """
    try:
        with transaction(database) as connection:
            return _arrivals(connection, rows, new=append_behaviors(connection, rows, arrived_at=arrived_at))
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == _STATEMENT_TIMEOUT:
            raise Unavailable("PostgreSQL did not write the behaviors in time; send them again") from error
        raise


def _arrivals(
    connection: Connection, rows: Sequence[Behavior], *, new: int, busy: frozenset[int] = frozenset()
) -> Arrivals:
    users = sorted({row.user_id for row in rows if row.positive})
    stale = connection.execute(_STALE, {"user_ids": users}).all() if users else ()
    return Arrivals(
        new=new,
        unknown=unknown_items(connection, rows),
        stale=tuple(Stale(user_id=user, group=group, never_listed=never) for user, group, never in stale),
        busy=busy,
    )
