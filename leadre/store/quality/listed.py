"""Some users who have a retrieval list. For people who look at an ad: who retrieves it. Ours."""

from __future__ import annotations

from sqlalchemy import Connection, select

from leadre.store.records.tables import user_state


def listed_users(connection: Connection, *, limit: int) -> list[int]:
    """Return at most `limit` users who ever had a list, in no order; how many there are costs nothing."""
    query = select(user_state.c.user_id).where(user_state.c.listed_at.is_not(None)).limit(limit)
    return list(connection.scalars(query))
