"""Summarize: behaviors to interest summaries and behavior sequences, for all users or for some. LEADRE §4.2.1.

Runs daily for everybody (the paper's T+1 features) and right after new behaviors for those they concern.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from leadre.store.records.database import connect, transaction
from leadre.store.records.summaries import SummaryCounts, write_summaries


def summarize(database_url: str, *, now: datetime, user_ids: Collection[int] | None = None) -> SummaryCounts:
    """Bring the summaries up to `now` in one transaction.

    Args:
        database_url: the system of record.
        now: behaviors after this do not exist yet.
        user_ids: only these users; all users, and their ARPU groups, if None.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            return write_summaries(connection, now=now, user_ids=user_ids)
    finally:
        engine.dispose()
