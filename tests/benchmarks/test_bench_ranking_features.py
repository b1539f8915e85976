"""The benchmark of ranking features: every way reads, and the figures it promises are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from leadre.settings import Settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_ranking_features.py"
spec = importlib.util.spec_from_file_location("bench_ranking_features", SCRIPT)
assert spec is not None
assert spec.loader is not None
bench = sys.modules["bench_ranking_features"] = importlib.util.module_from_spec(spec)


def test_every_way_of_reading_is_measured(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)  # the benchmark sets them for good
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "USERS", 3)
    monkeypatch.setattr(bench, "CANDIDATES", 20)
    figures = bench.measure(applied, ads=300, rounds=1, reads=2, serve_s=0)
    promised = ("ours_p50_ms", "ours_p99_ms", "odfv_p50_ms", "limit_p50_ms", "ours_rps")
    assert {*promised, "single_ms_per_user", "batch100_ms_per_user"} <= set(figures)
    assert min(figures.values()) > 0
    assert figures["odfv_over_ours"] > 1
