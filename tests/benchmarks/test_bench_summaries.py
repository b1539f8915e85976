"""The benchmark's plain Python finds the rows that the product wrote, and all figures are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_summaries.py"


def test_plain_python_writes_the_same_rows(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_summaries", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_summaries", bench)
    spec.loader.exec_module(bench)
    figures = bench.measure(database_url, 4000, 80, connections=2)
    assert {"ours_rows_per_s", "python_rows_per_s", "day_s", "full_s"} < set(figures)
    assert min(figures.values()) > 0
    assert figures["users"] == 80
    assert figures["day_users"] < 80
