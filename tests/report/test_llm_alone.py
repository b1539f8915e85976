"""What the LLM is worth, in the report: as `leadre experiment llm-alone` keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leadre.evaluation.bootstrap import Interval, pooled_intervals
from leadre.experiments.llm_alone import GROUPS, METRICS, SYSTEMS, VIEWS, Group, LlmAlone, View
from leadre.pipelines.results import keep_result, read_results
from tests.report.conftest import NOW, section

PageOf = Callable[..., str]


def an_answer(*, tied: int = 3) -> LlmAlone:
    """What the experiment finds: other figures in every view, and nobody with a cold ad."""

    def interval(mean: float) -> Interval:
        return Interval(mean=mean, low=mean - 0.01, high=mean + 0.02)

    def view(base: float) -> View:
        nobody = pooled_intervals(np.empty((1, 0, 4)), seed=0)
        systems = (*SYSTEMS, "fused_minus_signal")
        some = [interval(mean) for mean in (0.1, 0.4, 0.3, -0.02)]
        groups = {
            name: Group(users=users, r10=dict(zip(systems, some if users else nobody, strict=True)))
            for name, users in zip(GROUPS, (0, 5, 5, 5), strict=True)
        }
        names = [f"{system}_{metric}" for metric in METRICS for system in SYSTEMS]
        return View(
            means={name: interval(base + at / 100) for at, name in enumerate(names)},
            seed_sd={},
            fused_minus_signal={"r10": interval(0.0123), "n10": interval(-0.0045)},
            groups=groups,
        )

    views = {name: view(0.2 + at / 10) for at, name in enumerate(VIEWS)}
    return LlmAlone(releases=("r<1>", "r2"), users=1234, tied=tied, llm_shares=(0.6, 1.0), views=views)


def kept(home: Path, figures: dict[str, Any]) -> dict[str, Any]:
    keep_result(home, "llm-alone", figures, command="leadre experiment llm-alone --release r2", now=NOW)
    return {"results": read_results(home)}


def test_llm_signal_and_fused_stand_side_by_side_for_all_users_and_groups(page_of: PageOf, tmp_path: Path) -> None:
    page = page_of(**kept(tmp_path, an_answer().to_json()))
    shown = section(page, "llm_alone")
    for said in (
        "1,234 users",
        "r&lt;1&gt;, r2",
        "60 %, 100 %",
        "0.2000",  # the LLM alone, R@10, canonical
        "0.1900 to 0.2200",
        "+0.0123",
        "-0.0045",
        "0.4000",  # fused, of a group
        "5 users",
        "0 users",
        "leadre experiment llm-alone --release r2",
        "2026-03-01 00:00 UTC",
    ):
        assert said in shown, said
    assert "nan" not in shown
    assert shown.count("<table>") == 3
    assert "llm-alone" not in section(page, "paper")


def test_without_ties_one_order_is_all(page_of: PageOf, tmp_path: Path) -> None:
    shown = section(page_of(**kept(tmp_path, an_answer(tied=0).to_json())), "llm_alone")
    assert shown.count("<table>") == 1


def test_who_has_not_asked_gets_the_command(page_of: PageOf) -> None:
    shown = section(page_of(), "llm_alone")
    assert "leadre experiment llm-alone" in shown
    assert "<table" not in shown


def test_a_result_of_another_shape_or_a_broken_file_says_so(page_of: PageOf, tmp_path: Path) -> None:
    assert "another shape" in section(page_of(**kept(tmp_path, {"releases": []})), "llm_alone")
    (tmp_path / "results/llm-alone.json").write_text("{")
    assert "cannot be read" in section(page_of(results=read_results(tmp_path)), "llm_alone")
