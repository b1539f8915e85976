"""The report is one whole page: every figure it was given is on it, and the index's warning where there is one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.indexing.quality import index_quality
from leadre.recipe import Recipe, encode_recipe
from leadre.report import Report, write_report

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def evaluation(*, ecpm: float) -> dict[str, Any]:
    figure = {"mean": 0.4321, "low": 0.4, "high": 0.5}
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


@pytest.mark.parametrize("alike", [False, True])
def test_a_report_holds_its_figures_and_warns_of_ads_that_look_alike(tmp_path: Path, *, alike: bool) -> None:
    codes = np.zeros((64, 3), np.int32) if alike else np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    report = Report(
        release="r1",
        index_version="i1",
        dataset="64 ads",
        now=NOW,
        counts={"ads": 64},
        recipe=encode_recipe(Recipe(name="tiny")),
        quality=index_quality(codes.astype(np.int32), size=4, categories=np.zeros(64, np.int32)),
        curves=[{"stage": "main", "step": at, "loss": 1.0 / at} for at in (1, 2)],
        evaluation=evaluation(ecpm=284.25),
        before_dpo=evaluation(ecpm=249.5),
        trace=None,
        features=None,
    )
    write_report(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for figure in ("0.4321", "284.2500", "249.5000", "+13.9 %", "eCPM is simulated"):
        assert figure in page
    assert ("differ from each other in the last code only (the bound is 20%)" in page) is alike
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", page)
    fetched = re.findall(r"""(?:src|href)=["'](?!#)[^"']*|url\((?!#)|@import""", page)
    assert fetched == []  # a browser asks nobody for anything
