"""Reconcile: users whose newest list lacks their newest behavior and who are in no queue are marked again.

LEADRE §4.4.1. What the refresh queue has lost (a mark that was never made, a Redis that was wiped) is found in
PostgreSQL, in proportion to how many users are stale: an index knows them, and who is queued already costs a look.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from prometheus_client import Counter

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.store.records.database import transaction
from leadre.store.records.events import Stale, stale_page
from leadre.store.records.request_path import arpu_groups

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

PAGE_USERS = 10_000
"""Stale users looked at in a round (ours): the next round goes on behind them."""
GRACE = timedelta(seconds=1)
"""Who changed so recently is being marked by whoever wrote the behavior (ours)."""

REPAIRS = Counter("leadre_reconciler_repairs_total", "Stale users who were not in the refresh queue, and were marked.")


class Reconciler:
    """Goes through the stale users in turn, a page each round. For one thread at a time.

    Args:
        database: the system of record.
        queue: the refresh queue.
        page: users of a round.
    """

    def __init__(self, database: Database, queue: RefreshQueue, *, page: int = PAGE_USERS) -> None:
        self._database, self._queue, self._page = database, queue, page
        self._after: Stale | None = None

    def round(self, *, now: datetime) -> int:
        """Look at a page of the stale users and mark those who are not in the queue; return how many these were.

        Raises:
            Unavailable: PostgreSQL or Redis does not answer.
        """
        with transaction(self._database) as connection:
            page = stale_page(connection, now=now, limit=self._page, settled=now - GRACE, after=self._after)
        self._after = page[-1] if len(page) == self._page else None
        return _mark_missing(self._database, self._queue, page)


def mark_all_stale(database: Database, queue: RefreshQueue, *, now: datetime) -> int:
    """Mark all stale users who are not in the queue; return how many these were. Raises as `Reconciler.round`."""
    marked, after = 0, None
    while True:
        with transaction(database) as connection:
            page = stale_page(connection, now=now, limit=PAGE_USERS, after=after)
        marked += _mark_missing(database, queue, page)
        if len(page) < PAGE_USERS:
            return marked
        after = page[-1]


def _mark_missing(database: Database, queue: RefreshQueue, page: list[Stale]) -> int:
    missing = set(queue.missing([stale.user_id for stale in page]))
    for listed in (True, False):
        users = [stale.user_id for stale in page if stale.user_id in missing and stale.listed is listed]
        if users:
            with transaction(database) as connection:
                groups = arpu_groups(connection, users)
            queue.mark(users, groups=groups, new=not listed)
            REPAIRS.inc(len(users))
    return len(missing)
