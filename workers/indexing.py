"""Task of the queue `indexing`: new ads get S-IDs within a minute. LEADRE §3.2 (frozen codebooks)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)


@app.task(name="workers.indexing.index_new_ads", acks_late=False)  # type: ignore[untyped-decorator]
def index_new_ads() -> None:
    """Add the catalog's new ads to the live release's index; workers go over to the new revision with their next batch.

    When nothing is new this costs one look at an index of the catalog's table: a process looks at all ads once, and
    from then on at those that changed.
    """
    from leadre.pipelines.index.build import add_new_ads

    held = resources()
    with held.alone("index", at_most_s=3600) as alone:
        version = held.live_index_version()
        if not alone or version is None:
            return
        added = add_new_ads(
            database_url=held.settings.database_url,
            indexes=held.settings.indexes,
            version=version,
            now=datetime.now(UTC),
            changed_since=held.indexed_until.get(version, 0),
        )
        held.indexed_until[version] = added.changed_until
    if added.ads:
        extra = {"index_version": version, "revision": added.index.revision, "ads": added.ads}
        logger.info("ads_indexed", extra=extra)
