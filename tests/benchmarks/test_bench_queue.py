"""The benchmark of the refresh queue: both ways run, and the figures it promises are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_queue.py"
spec = importlib.util.spec_from_file_location("bench_queue", SCRIPT)
assert spec is not None
assert spec.loader is not None
bench = sys.modules["bench_queue"] = importlib.util.module_from_spec(spec)


def test_queue_and_celery_are_measured(redis_url: str) -> None:
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(bench)
    figures = bench.measure(redis_url, users=3000, tasks=20, rounds=2)
    assert {"queue_users_per_s", "celery_tasks_per_s", "backlog_mb", "mark_requests_per_s"} <= set(figures)
    assert min(figures.values()) > 0
    assert figures["pending_users"] == 3000
    assert figures["bytes_per_pending_user"] < 300  # with 100,000 users it is less
