"""Tasks of the queue `retrieval`: refreshes of users' lists. LEADRE §4.4.1."""

from __future__ import annotations

import logging

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)


@app.task(name="workers.retrieval.refresh_users")  # type: ignore[untyped-decorator]
def refresh_users() -> None:
    """Work the refresh queue off. Which users, only the queue knows: a lost or doubled message changes nothing."""
    drained = resources().drain()
    if drained is not None and drained.batches:
        extra = {"users": drained.refreshed, "batches": drained.batches, "failed": drained.failed}
        logger.info("queue_drained", extra=extra)


@app.task(name="workers.retrieval.revive_dead")  # type: ignore[untyped-decorator]
def revive_dead() -> None:
    """Give users who failed three times another chance: meanwhile their data or the release may have changed."""
    if revived := resources().queue.revive():
        logger.info("dead_users_revived", extra={"users": revived})
