"""The benchmark of materialization: with one process and with two, every list is written."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from leadre.settings import Settings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_materialize.py"

# feast 0.67 (2026-11): says of pandas that it changes, and of on-demand views that they do not scale.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:On demand feature view:RuntimeWarning"
)


def test_every_way_of_materializing_is_measured(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_materialize", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = sys.modules["bench_materialize"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    figures = bench.measure(applied, users=60, feast_users=0, rounds=1, ray=False)  # Feast's engine takes seconds
    names = ("one_process_rows_per_s", "two_process_rows_per_s", "two_over_one", "peak_rss_mb")
    assert min(figures[name] for name in names) > 0
