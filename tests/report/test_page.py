"""The report is one page: every figure it was given is on it, and of what nobody measured the command that does."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from leadre.pipelines.doctor.finding import fault, ok, warning
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.pipelines.feature_quality.figures import Figure, Histogram
from leadre.pipelines.results import Result
from leadre.retrieval.refresh_queue_stats import QueueStats
from tests.report.conftest import NOW, evaluation, section

PageOf = Callable[..., str]


@pytest.mark.parametrize("alike", [False, True])
def test_a_report_holds_its_figures_and_warns_of_ads_that_look_alike(page_of: PageOf, *, alike: bool) -> None:
    page = page_of(alike=alike, before_dpo=evaluation(ecpm=249.5))
    for figure in ("0.4321", "284.2500", "249.5000", "+13.9 %", "eCPM is simulated"):
        assert figure in page
    assert ("differ from each other in the last code only (the bound is 20%)" in page) is alike
    assert not re.search(r"https?://", page)
    fetched = re.findall(r"""(?:src|href)=["'](?!#)[^"']*|url\((?!#)|@import""", page)
    assert fetched == []  # a browser asks nobody for anything


def test_what_nobody_measured_is_a_command_and_no_figure(page_of: PageOf) -> None:
    page = page_of(evaluation={}, curves=())
    for key, said in (
        ("quality", "leadre evaluate"),
        ("comparison", "No release was live before"),
        ("simulation", "leadre simulate"),
        ("learning", "no training curve"),
        ("paper", "leadre index encoders"),
        ("benchmarks", "bench_decode.py"),
        ("health", "leadre doctor"),
        ("story", "Only the live release"),
    ):
        assert said in section(page, key)
        assert not re.search(r"\d\.\d{3}", section(page, key))


def test_features_are_shown_with_what_is_out_of_bounds_and_with_what_drifted(page_of: PageOf) -> None:
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
    shown = section(page_of(features=quality), "features")
    for said in ("300 of 4,000 users", '90,000 <b class="bad">out</b>', "0.875", "at least 0.9", "<b>much</b>"):
        assert said in shown
    assert "3 beside 9 rows" in shown
    assert ">some<" in shown
    assert "1.5 to 2.5: 75.0 %" in shown
    assert "ads in a list, %" in shown
    assert "probability of the first ad" not in shown


def test_a_report_says_why_it_has_no_features(page_of: PageOf) -> None:
    page = page_of()
    assert "The features could not be checked: no Redis &lt;at all&gt;" in page
    assert "Freshness" not in page


def test_health_says_what_to_run_next_and_who_waits(page_of: PageOf) -> None:
    findings = [warning("disk", "little", run="df"), ok("redis", "up"), fault("postgres", "<b>down</b>", run="up & go")]
    queue = QueueStats(
        depth=(0,) * 3 + (5,) + (0,) * 21,
        oldest_s=(0.0,) * 3 + (12.5,) + (0.0,) * 21,
        claimed=2,
        dead=0,
        cut=0,
        budget_users=None,
        claims={"llm": 0, "cheap": 0},
        expiries=0,
        died=0,
    )
    shown = section(page_of(health=findings, queue=queue), "health")
    assert "1 fault</strong>, 1 thing to look at" in shown
    assert 'To run next: <code class="run">up &amp; go</code>' in shown
    assert "&lt;b&gt;down&lt;/b&gt;" in shown
    assert shown.index(">postgres<") < shown.index(">redis<") < shown.index(">disk<")
    assert "5 users wait" in shown
    assert "12.5" in shown


def test_benchmarks_are_shown_as_they_were_printed(page_of: PageOf) -> None:
    read = [
        Result(name="bench_x", figures={"ours_per_s": 1234.5, "ways": {"exact": {"ratio": 0.25}}, "note": "<i>"}),
        Result(name="bench_y", figures={}, problem="bench_y.json cannot be read: no <JSON>"),
    ]
    shown = section(page_of(benchmarks=read), "benchmarks")
    for said in ("ours per s", "1,234", "ways, exact, ratio", "0.250", "&lt;i&gt;", "no &lt;JSON&gt;"):
        assert said in shown
