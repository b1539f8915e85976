"""The benchmark of the nearline module: queue and writes beside Celery with Feast's, and the figures are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from leadre.settings import Settings

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_written_users_and_celery_s_writes_are_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "bench_queue", raising=False)  # another test's, perhaps not executed yet
    spec = importlib.util.spec_from_file_location("bench_nearline", FOLDER / "bench_nearline.py")
    assert spec is not None
    assert spec.loader is not None
    bench = sys.modules["bench_nearline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    settings.home.mkdir()
    figures = bench.queue_and_writes(settings, users=2000, tasks=20, rounds=1)
    names = {"queue_users_per_s", "celery_tasks_per_s", "ours_users_per_s", "celery_write_users_per_s"}
    assert names <= set(figures)
    assert min(figures.values()) > 0
