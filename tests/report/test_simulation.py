"""Simulated A/B tests in the report: lifts with intervals, always called simulated, the paper's beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.report.conftest import section


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02}


def a_simulation() -> dict[str, Any]:
    """What `leadre simulate` leaves."""
    pairs = {"branch": 0.0321, "features": -0.004, "both": 0.028, "dpo": 0.01, "ard": 0.02, "aa": 0.0}
    sweep = [
        {
            "parameter": "llm_budget",
            "value": value,
            "branch": {"expected_gmv": interval(value / 100)},
            "other": {"expected_gmv": interval(-value / 100)},
            "other_is": "with features",
            "consumption_ratio": 0.1,
        }
        for value in (0.5, 2.0)
    ]
    return {
        "simulation": True,
        "worlds": 5,
        "consumption_ratio": 0.0612,
        "aa_lift": interval(0.001),
        "arms": {"without": {"gmv": 12_345.6, "ctr": 0.0123}, "<branch>": {"gmv": 13_000.0}},
        "lifts": {name: {"gmv": interval(mean)} for name, mean in pairs.items()},
        "sweep": sweep,
        "sweep_worlds": 2,
        "paper": {"branch": [0.0117, 0.0157], "features": [0.0143], "consumption_ratio": [0.0733]},
        "parameters": {"users": 300},
        "seeds": [1, 2],
    }


def test_lifts_have_intervals_and_are_called_simulated(page_of: Callable[..., str]) -> None:
    shown = section(page_of(simulation=a_simulation()), "simulation")
    for said in (
        "Simulation.",
        "made up",
        "5 worlds",
        "+3.21 %",
        "+2.21 to +5.21",
        "paper +1.17, +1.57 %",
        "6.12&nbsp;%",
    ):
        assert said in shown
    for said in ("7.33 %", "12,346", "0.0123", "&lt;branch&gt;", "llm budget", "-2.00 %"):
        assert said in shown
    assert "no figure here was measured on real traffic" in shown


def a_real_run() -> dict[str, Any]:
    """What `leadre simulate --real` adds."""
    figures = dict.fromkeys(("gmv", "expected_gmv", "revenue", "impressions", "ctr", "consumption_ratio"), 1.25)
    arm = {
        "fast": figures,
        "real": figures,
        "due": 118,
        "fresh_share": 0.975,
        "equal_share": 0.991,
        "common": 0.998,
        "visible_s": {"p50": 0.31, "p95": 0.92},
    }
    return {
        "deadline_s": 5.0,
        "parameters": {"users": 60},
        "arms": {"branch": arm, "<late>": {**arm, "visible_s": None}},
    }


def test_both_clocks_stand_beside_each_other_with_or_without_other_results(page_of: Callable[..., str]) -> None:
    for others in (a_simulation(), {"simulation": True}):
        shown = section(page_of(simulation={**others, "real": a_real_run()}), "simulation")
        for said in ("On a real clock", "97.5 %", "99.1 %", "0.31 s", "&lt;late&gt;", "made up", "waited up to 5 s"):
            assert said in shown
        assert ("+3.21 %" in shown) is ("lifts" in others)


def test_a_result_of_another_shape_says_so(page_of: Callable[..., str]) -> None:
    shown = section(page_of(simulation={"worlds": 3}), "simulation")
    assert "result.json has another shape" in shown
    assert "%" not in shown
