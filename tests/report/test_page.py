"""The report is one whole page: every figure it was given is on it, and the index's warning where there is one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.indexing.quality import index_quality
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.pipelines.feature_quality.figures import Figure, Histogram
from leadre.recipe import Recipe, encode_recipe
from leadre.report import Report, write_report

NOW = datetime(2026, 3, 1, tzinfo=UTC)
UNCHECKED = FeatureQuality(now=NOW, samples=("The features could not be checked: no Redis <at all>",))


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


def page_of(folder: Path, *, alike: bool = False, quality: FeatureQuality = UNCHECKED) -> str:
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
        features=quality,
    )
    write_report(report, folder / "report.html")
    return (folder / "report.html").read_text()


@pytest.mark.parametrize("alike", [False, True])
def test_a_report_holds_its_figures_and_warns_of_ads_that_look_alike(tmp_path: Path, *, alike: bool) -> None:
    page = page_of(tmp_path, alike=alike)
    for figure in ("0.4321", "284.2500", "249.5000", "+13.9 %", "eCPM is simulated"):
        assert figure in page
    assert ("differ from each other in the last code only (the bound is 20%)" in page) is alike
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org|matplotlib\.org)", page)
    fetched = re.findall(r"""(?:src|href)=["'](?!#)[^"']*|url\((?!#)|@import""", page)
    assert fetched == []  # a browser asks nobody for anything


def test_features_are_shown_with_what_is_out_of_bounds_and_with_what_drifted(tmp_path: Path) -> None:
    view = {"view": "retrieved_ads"}
    quality = FeatureQuality(
        now=NOW,
        samples=("300 of 4,000 users",),
        figures=(
            Figure(name="age_seconds", of=view, value=90_000.0, at_most=86_400.0),
            Figure(name="online_behind_ratio", of=view, value=0.0, at_most=0.01),
            Figure(name="online_lag_seconds", of=view, value=0.0),
            Figure(name="list_coverage_ratio", value=0.875, at_least=0.9),
            Figure(name="psi", of={"feature": "entropy"}, value=0.3, at_most=0.25),
            Figure(name="psi", of={"feature": "rank"}, value=0.2, at_most=0.25),
            Figure(name="psi", of={"feature": "hit"}, value=None, at_most=0.25, note="3 beside 9 rows"),
        ),
        histograms=(
            Histogram(name="retrieved_count", edges=(0.5, 1.5, 2.5), counts=(1, 3)),
            Histogram(name="entropy", edges=(0.0, 1.0), counts=(4,)),
        ),
    )
    page = page_of(tmp_path, quality=quality)
    section = page[page.index("<h2>Features</h2>") : page.index("<h2>What it was made from</h2>")]
    for said in ("300 of 4,000 users", "90,000 <b>out</b>", "0.875", "at least 0.9", "<b>much</b>", "3 beside 9 rows"):
        assert said in section
    assert ">some<" in section
    assert section.count("<svg") == 2
    assert "ads in a list, %" in section
    assert "probability of the first ad" not in section


def test_a_report_says_why_it_has_no_features(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "The features could not be checked: no Redis &lt;at all&gt;" in page
    assert "Freshness" not in page
