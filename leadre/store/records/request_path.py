"""What the request path asks of the system of record: short questions with short answers.

LEADRE §4.4.1 (ARPU groups order refreshes), §5.3 (LEADRE's branch runs beside others, such as popularity).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from leadre.domain.behavior import POSITIVE, Behavior, Domain
from leadre.store.records.catalog import may_be_shown
from leadre.store.records.tables import ads, behaviors, content_items, users


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
            known = set(connection.scalars(select(key).where(key.in_(items))))
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
