"""Task of the queue `backfill`: lists of the past, as `leadre dataset lists` plans them. LEADRE §5.3."""

from __future__ import annotations

import logging

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)


@app.task(name="workers.dataset.make_past_lists", acks_late=False)  # type: ignore[untyped-decorator]
def make_past_lists() -> None:
    """Work off what waits, shard by shard. Which shards, only the database knows: a lost message changes nothing."""
    from leadre.pipelines.dataset.backfill import PastDecoder

    held = resources()
    decoder = PastDecoder(held.settings, database=held.database)  # its model goes with it
    if lists := decoder.work_off(failures="note", should_stop=held.stopping.is_set):
        logger.info("past_lists_made", extra={"lists": lists})
