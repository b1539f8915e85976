"""Tasks of the queue `maintenance`: the features' quality as gauges, which the User Server shows Prometheus.

LEADRE §4.4.1. What is out of bounds is in the log too, a line each.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from .app import app
from .resources import resources

logger = logging.getLogger(__name__)

STATE_SAMPLE, DRIFT_SAMPLE = 2_000, 10_000
"""Users looked at every five minutes, and once a day (ours)."""


@app.task(name="workers.features.check_state", acks_late=False)  # type: ignore[untyped-decorator]
def check_state() -> None:
    """Measure freshness, coverage and distributions."""
    _check("state", sample=STATE_SAMPLE)


@app.task(name="workers.features.check_drift", acks_late=False)  # type: ignore[untyped-decorator]
def check_drift() -> None:
    """Measure how the features of the last day differ from those of the week before."""
    _check("drift", sample=DRIFT_SAMPLE)


def _check(what: str, *, sample: int) -> None:
    from leadre.pipelines.feature_quality.check import Bounds, check_features
    from leadre.serving.metrics import publish

    held = resources()
    with held.alone(f"check-{what}", at_most_s=600) as alone:
        if not alone:
            return
        checked = check_features(
            held.database,
            held.features.store,
            now=datetime.now(UTC),
            bounds=Bounds(),
            sample=sample,
            what=frozenset({what}),
        )
        publish(held.redis, what, checked.gauges(what))
    for figure in checked.out:
        logger.warning("feature_out_of_bounds", extra={"figure": figure.title, "value": figure.value})
