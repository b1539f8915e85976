"""The benchmark of the fence: every way writes, and the fenced store is never seen to go back."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_fenced_write.py"

# feast 0.67 (2026-11): says of a file source that its format is guessed, and of pandas that it changes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_rates_and_backward_moves_are_measured(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bench_feature_writer", raising=False)  # whose own test has not loaded it yet
    spec = importlib.util.spec_from_file_location("bench_fenced_write", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = sys.modules["bench_fenced_write"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    figures = bench.measure(redis_url, folder=tmp_path, batches=1, rounds=1, reads=2_000, writers=2)
    assert figures["backward"] == 0
    assert {"feast_backward", "ours_over_feast", "moves", "feast_moves"} <= set(figures)
    assert min(figures[f"{name}_rows_per_s"] for name in ("ours", "fenced_feast", "feast")) > 0
