"""Tasks of the queue `retrieval`: Adaptive Resource Distribution. LEADRE §4.4.1."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)


@app.task(name="workers.distribution.distribute", acks_late=False)  # type: ignore[untyped-decorator]
def distribute() -> None:
    """Tell the refresh queue what the groups are worth and how far down the LLM serves now."""
    from leadre.pipelines.distribution.distribute import distribute
    from leadre.serving.metrics import publish
    from leadre.store.records.database import transaction

    held = resources()
    with held.alone("distribute", at_most_s=30) as alone:
        if alone:
            with transaction(held.database) as connection:
                done = distribute(connection, held.queue, settings=held.settings)
            publish(held.redis, "distribution", done.gauges())


@app.task(name="workers.distribution.measure_freshness", acks_late=False)  # type: ignore[untyped-decorator]
def measure_freshness() -> None:
    """Publish how fresh the lists are, weighted by revenue."""
    from leadre.pipelines.distribution.distribute import measure_freshness
    from leadre.serving.metrics import publish
    from leadre.store.records.database import transaction

    held = resources()
    with held.alone("measure-freshness", at_most_s=60) as alone:
        if alone:
            with transaction(held.database) as connection:
                gauges = measure_freshness(connection, now=datetime.now(UTC))
            publish(held.redis, "freshness", gauges)
