"""Impressions as business alignment needs them: what users liked, and what was best for them. LEADRE §4.3.2, §5.2.3."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, select, text

from leadre.domain.behavior import Impression
from leadre.store.records.tables import impressions


def liked_impressions(connection: Connection, *, before: datetime) -> list[Impression]:
    """Return the clicked or converted impressions before an instant, by user and time."""
    columns = impressions.c
    query = (
        select(*(columns[name] for name in Impression.__dataclass_fields__))
        .where(columns.clicked | columns.converted, columns.occurred_at < before)
        .order_by(columns.user_id, columns.occurred_at, columns.impression_id)
    )
    return [Impression(**row._mapping) for row in connection.execute(query)]


def best_shown(
    connection: Connection, users: Sequence[int], *, since: Sequence[datetime], count: int
) -> dict[int, list[int]]:
    """Return, for each user, the shown ads of the highest eCPM: what the ranking of the live system chose for them.

    Args:
        connection: to the system of record.
        users: different ids.
        since: for each user the first instant that counts.
        count: different ads of a user at most.

    Returns:
        From user id to ad ids, the best first; users who were shown nothing are left out.
    """
    rows = connection.execute(_BEST_SHOWN, {"users": list(users), "since": list(since), "count": count})
    best: dict[int, list[int]] = {}
    for user_id, ad_id in rows:
        best.setdefault(user_id, []).append(ad_id)
    return best


_BEST_SHOWN = text("""
    SELECT user_id, ad_id
    FROM (
        SELECT
            user_id,
            ad_id,
            row_number() OVER (PARTITION BY user_id ORDER BY max(ecpm) DESC, ad_id) AS place
        FROM unnest(CAST(:users AS bigint[]), CAST(:since AS timestamptz[])) AS asked (user_id, since)
        JOIN impressions USING (user_id)
        WHERE occurred_at >= since
        GROUP BY user_id, ad_id
    ) AS ranked
    WHERE place <= :count
    ORDER BY user_id, place
""")
