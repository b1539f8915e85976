"""Tasks of the queue `maintenance`: features up to date, and no user forgotten. LEADRE §4.2.1, §4.4.1."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)

MOST_STALE = 10_000
"""Users marked at once; the next round marks the others."""


@app.task(name="workers.materialization.summarize", acks_late=False)  # type: ignore[untyped-decorator]
def summarize() -> None:
    """Bring interest summaries, behavior sequences and ARPU groups up to date."""
    from leadre.errors import InvalidInput
    from leadre.pipelines.summarize import summarize

    held = resources()
    with held.alone("summarize", at_most_s=3600) as alone:
        if alone:
            try:
                summarize(held.settings.database_url, now=datetime.now(UTC))
            except InvalidInput as error:  # an old log, for experiments: nothing is lost
                logger.warning("nothing_summarized", extra={"error": str(error)})


@app.task(name="workers.materialization.materialize", acks_late=False)  # type: ignore[untyped-decorator]
def materialize() -> None:
    """Bring the online store up to date, as `feast materialize-incremental` does."""
    held = resources()
    with held.alone("materialize", at_most_s=3600) as alone:
        if alone:
            held.features.materialize_incremental(datetime.now(UTC))


@app.task(name="workers.materialization.reconcile", acks_late=False)  # type: ignore[untyped-decorator]
def reconcile() -> None:
    """Mark users whose newest behavior is not in their newest list: whoever the queue has lost is found here."""
    from leadre.store.records.database import transaction
    from leadre.store.records.events import stale_users
    from leadre.store.records.request_path import arpu_groups

    held = resources()
    with transaction(held.database) as connection:
        stale = stale_users(connection, now=datetime.now(UTC), limit=MOST_STALE)
        groups = arpu_groups(connection, stale)
    if stale:
        held.queue.mark(stale, groups=groups)
        logger.info("stale_users_marked", extra={"users": len(stale)})


@app.task(name="workers.materialization.drop_old_months", acks_late=False)  # type: ignore[untyped-decorator]
def drop_old_months() -> None:
    """Drop months that are older than the settings say, if they say so."""
    from leadre.pipelines.retention import drop_old_months as drop

    held = resources()
    days, export = held.settings.retention_days, held.settings.retention_export
    if days is None:
        return
    with held.alone("retention", at_most_s=12 * 3600) as alone:
        if alone:
            drop(held.database, now=datetime.now(UTC), days=days, export=export)
