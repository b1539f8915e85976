"""Benchmarks import what they share by bare name, as scripts of one folder do."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put their folder on the path, as `python benchmarks/bench_x.py` does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
