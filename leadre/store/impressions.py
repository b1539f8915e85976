"""Impressions as business alignment needs them: what users liked, and what ads earn. LEADRE §4.3.2."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, func, select

from leadre.domain.behavior import Impression
from leadre.store.tables import impressions


def liked_impressions(connection: Connection, *, before: datetime) -> list[Impression]:
    """Return the clicked or converted impressions before an instant, by user and time."""
    columns = impressions.c
    query = (
        select(*(columns[name] for name in Impression.__dataclass_fields__))
        .where(columns.clicked | columns.converted, columns.occurred_at < before)
        .order_by(columns.user_id, columns.occurred_at, columns.impression_id)
    )
    return [Impression(**row._mapping) for row in connection.execute(query)]


def mean_ecpm(connection: Connection, *, before: datetime) -> dict[int, float]:
    """Return the mean eCPM of every ad that was shown before an instant, over all its impressions."""
    columns = impressions.c
    query = select(columns.ad_id, func.avg(columns.ecpm)).where(columns.occurred_at < before).group_by(columns.ad_id)
    return {ad_id: float(ecpm) for ad_id, ecpm in connection.execute(query)}


def ecpm_is_simulated(connection: Connection) -> bool:
    """Return whether any impression's eCPM is not a real one: figures made from it say so."""
    found: bool = connection.scalar(select(exists().where(impressions.c.simulated))) or False
    return found
