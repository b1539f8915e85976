from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from leadre.serving.metrics import published
from workers.features import check_drift, check_state
from workers.materialization import materialize, reconcile, summarize
from workers.resources import Resources, resources
from workers.retrieval import refresh_users
from workers.schedule import BEAT_SCHEDULE

pytestmark = pytest.mark.slow


@pytest.fixture
def held(system, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """This process's resources, on the system's servers."""
    monkeypatch.setattr(os, "environ", dict(system.environment))
    resources.cache_clear()
    yield resources()
    resources().features.close()
    resources().database.dispose()
    resources.cache_clear()


def test_what_the_worker_measures_is_what_prometheus_reads(system, held: Resources) -> None:
    for task in (summarize, materialize, reconcile, refresh_users, check_state, check_drift):
        task.run()
    gauges = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in published(held.redis)
        for sample in metric.samples
    }
    assert gauges[("leadre_feature_list_coverage_ratio",)] == 1
    assert gauges["leadre_feature_lists_ratio", ("index_version", "i1"), ("release", "r1")] == 1
    assert gauges["leadre_feature_neutral_ratio", ("why", "no_list")] == 0
    assert {("leadre_feature_checked_timestamp_seconds", ("what", what)) for what in ("state", "drift")} <= set(gauges)
    assert {"leadre_feature_age_seconds"} <= {metric.name for metric in published(held.redis)}
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} >= {check_state.name, check_drift.name}
