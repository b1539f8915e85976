"""The benchmark of ingest writes every behavior once, and all figures are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from leadre.settings import Settings
from leadre.store.records.database import connect, transaction

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_ingest.py"


def test_every_behavior_of_the_benchmark_is_written_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_ingest", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_ingest", bench)
    spec.loader.exec_module(bench)
    figures = bench.measure(settings, entries=1200, waiting=40, rounds=2, rate=200, seconds=0.3)
    assert {"persisted_rows_per_s", "sync_rows_per_s", "lag_p50_ms", "lag_p95_ms"} < set(figures)
    assert min(figures.values()) > 0
    database = connect(settings.database_url)
    with transaction(database) as connection:
        assert connection.scalar(text("SELECT count(*) FROM behaviors")) == 2 * (1200 + 40) + 60
    database.dispose()
