"""The benchmark of the point-in-time join: every engine gives the same values, and its figures are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from leadre.settings import Settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_point_in_time.py"
spec = importlib.util.spec_from_file_location("bench_point_in_time", SCRIPT)
assert spec is not None
assert spec.loader is not None
bench = sys.modules["bench_point_in_time"] = importlib.util.module_from_spec(spec)

# feast 0.67 (2026-11): on-demand views "do not scale well", which is what is measured.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")


def test_every_engine_is_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADRE_FEAST_PARQUET", "")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(bench)
    figures = bench.measure(settings, rows=200, peer_rows=50, rounds=1)
    engines = ("postgres", "duckdb_join", "duckdb", "feast_odfv")
    assert {f"{engine}_rows_per_s" for engine in engines} <= set(figures)
    assert {f"{engine}_{part}_s" for engine in ("postgres", "duckdb") for part in ("join", "unpack", "match")} <= set(
        figures
    )
    assert (figures["rows"], figures["columns"]) == (200, 16)
    assert min(figures.values()) > 0
