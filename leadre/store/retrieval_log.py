"""The retrieval log: every list ever written, with its user-side features. LEADRE §5.3.

The offline half of the feature view `retrieved_ads`: what a ranker's training set joins to its impressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from leadre.store.tables import retrieval_log

COLUMNS = tuple(column.name for column in retrieval_log.columns if column.name not in ("log_id", "created_at"))
"""The columns of a row, as `append` takes and `newest` gives them."""


def append(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows in one statement. A user has one list an instant: writing it again changes nothing.

    Args:
        connection: in a transaction.
        rows: `COLUMNS` by name.
    """
    if rows:
        values = [{name: row[name] for name in COLUMNS} for row in rows]
        connection.execute(insert(retrieval_log).on_conflict_do_nothing(), values)


def newest(
    connection: Connection, user_ids: Sequence[int], *, at: datetime | None = None
) -> dict[int, Mapping[str, Any]]:
    """Return each user's newest row, users without one left out.

    Args:
        connection: any.
        user_ids: whose.
        at: leave later rows out; None takes all.
    """
    statement = select(*(retrieval_log.c[name] for name in COLUMNS)).where(retrieval_log.c.user_id.in_(user_ids))
    if at is not None:
        statement = statement.where(retrieval_log.c.event_at <= at)
    statement = statement.distinct(retrieval_log.c.user_id).order_by(
        retrieval_log.c.user_id, retrieval_log.c.event_at.desc()
    )
    return {row["user_id"]: row for row in connection.execute(statement).mappings()}
