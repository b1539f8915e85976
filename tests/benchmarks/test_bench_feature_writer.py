"""The benchmark of the list writer: every way writes, and the figures it promises are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_feature_writer.py"
spec = importlib.util.spec_from_file_location("bench_feature_writer", SCRIPT)
assert spec is not None
assert spec.loader is not None
bench = sys.modules["bench_feature_writer"] = importlib.util.module_from_spec(spec)

# feast 0.67 (2026-11): says of a file source that its format is guessed, and of pandas that it changes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_every_way_of_writing_is_measured(database_url: str, redis_url: str, tmp_path: Path) -> None:
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(bench)
    figures = bench.measure(database_url, redis_url, folder=tmp_path, ads=300, batches=1, rounds=1)
    ways = ("ours", "with_log", "copy", "copy_binary", "feast_batch", "feast_push", "feast_former_batch", "derive")
    assert {f"{way}_rows_per_s" for way in ways} <= set(figures)
    assert min(figures.values()) > 0
    assert 900 < figures["record_bytes"] < figures["bytes_per_user"] < figures["bytes_per_user_hashed_ids"]
