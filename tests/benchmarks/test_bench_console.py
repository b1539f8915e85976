"""The console's pages are asked for, on a small world and a large index, and every one has its figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.bench_console import measure
from leadre.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view:RuntimeWarning")

PAGES = ("overview", "user", "user_search_llm", "user_why_llm", "ad", "index", "queue", "releases")
LARGE = ("index", "prefix", "ad")


def test_every_page_is_measured_on_both_worlds(
    empty_database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.feast_environment().items():
        monkeypatch.setenv(name, value)  # `measure` sets them anew; afterwards they are as they were
    figures = measure(replace(settings, database_url=empty_database_url), ads=8_192, times=2)
    assert figures["large_ads"] == 8_192
    expected = [f"{page}{kind}" for page in PAGES for kind in ("_ms", "_p95_ms")]
    expected += [f"large_{page}{kind}" for page in LARGE for kind in ("_first_ms", "_ms", "_p95_ms")]
    assert figures.keys() == {"ads", "large_ads", *expected}
    assert all(figures[name] > 0 for name in expected)
