"""Task of the queue `maintenance`: new ads get S-IDs within minutes. LEADRE §3.2 (frozen codebooks)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from workers.app import app
from workers.resources import resources

logger = logging.getLogger(__name__)


@app.task(acks_late=False)  # type: ignore[untyped-decorator]
def index_new_ads() -> None:
    """Add the catalog's new ads to the live release's index; workers load the new revision with their next batch."""
    from leadre.pipelines.build_index import add_new_ads

    held = resources()
    with held.alone("index", at_most_s=3600) as alone:
        version = held.live_index_version()
        if not alone or version is None:
            return
        settings = held.settings
        index = add_new_ads(
            database_url=settings.database_url, indexes=settings.indexes, version=version, now=datetime.now(UTC)
        )
    logger.debug("index_is_complete", extra={"index_version": version, "ads": len(index)})
