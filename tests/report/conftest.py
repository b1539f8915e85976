"""Parts of a report as the commands leave them, and a page made of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.indexing.quality import index_quality
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.recipe import Recipe, encode_recipe
from leadre.report import Report, write_report

NOW = datetime(2026, 3, 1, tzinfo=UTC)
UNCHECKED = FeatureQuality(now=NOW, samples=("The features could not be checked: no Redis <at all>",))


def evaluation(*, ecpm: float = 284.25, mean: float = 0.4321) -> dict[str, Any]:
    """An evaluation's plain form: every figure the same."""
    figure = {"mean": mean, "low": mean - 0.03, "high": mean + 0.07}
    of_view = dict.fromkeys(("HR@1", "HR@8", "NDCG@8"), figure)
    views = dict.fromkeys(("canonical", "untied", "shuffled"), of_view)
    return {
        "users": 7,
        "tied": 0,
        "cutoffs": [1, 8],
        "metrics": {"leadre": views, "popularity": views},
        "lists": {"leadre": {"mean_ecpm": ecpm, "diversity": 0.1, "ltrr": {"LTRR@4": 0.2}}},
        "simulated_ecpm": True,
    }


def a_report(*, alike: bool = False, **changes: Any) -> Report:
    """A report in which nothing optional was measured, but for `changes`."""
    codes = np.zeros((64, 3), np.int32) if alike else np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    base: dict[str, Any] = {
        "release": "r1",
        "live": False,
        "index_version": "i1",
        "now": NOW,
        "counts": {"ads": 64},
        "recipe": encode_recipe(Recipe(name="tiny")),
        "quality": index_quality(codes.astype(np.int32), size=4, categories=np.zeros(64, np.int32)),
        "curves": [{"stage": "main", "step": at, "loss": 1.0 / at} for at in (1, 2)],
        "evaluation": evaluation(),
        "before_dpo": None,
        "features": UNCHECKED,
        "results": {},
    }
    return Report(**{**base, **changes})


def section(page: str, key: str) -> str:
    """The HTML of one section."""
    begin = page.index(f'<section id="{key}"')
    return page[begin : page.index("</section>", begin)]


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[..., str]:
    """Write a report, and return its HTML."""

    def write(**changes: Any) -> str:
        write_report(a_report(**changes), tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return write
