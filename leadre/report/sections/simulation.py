"""The simulated A/B tests: lifts with intervals, arms, and where LEADRE does not help. LEADRE §5.3, simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadre.report.content import Report, Section
from leadre.report.plots import Triple, whiskers

_LIFTS = {
    "branch": "LEADRE as a branch, over none",
    "features": "its ranking features as well, over the branch",
    "both": "branch and features, over none",
    "dpo": "after DPO, over before it",
    "ard": "limited LLM: ARD, over first come first served",
    "limited_ard": "limited LLM with ARD, over none",
    "aa": "A/A: the same system, other luck",
}
_SWEEPS = ("branch", "other")
_SWEPT = "expected_gmv"
"""What the sweep shows: GMV with true probabilities for dice, whose noise is a third."""
_FIGURES = ("gmv", "expected_gmv", "revenue", "impressions", "ctr", "consumption_ratio", "diversity", "lists_llm")
"""Figures that are shown of arms."""
_CLOCKS = ("gmv", "expected_gmv", "revenue", "impressions", "ctr", "consumption_ratio")
"""Figures that are shown of both clocks."""


def simulation(report: Report) -> Section:
    """Return the section; empty where nothing was simulated; a file of another shape says so."""
    found = report.simulation
    parts: dict[str, Any] = {"run": "leadre simulate", "problem": "", "found": None, "real": None}
    if found is not None:
        try:
            if "real" in found:
                parts["real"] = _real(found["real"])
            if "lifts" in found or "real" not in found:
                parts |= {"run": "", "found": found, **_parts(found)}
        except (KeyError, TypeError, ValueError) as error:
            parts["problem"] = f"result.json has another shape than `leadre simulate` writes ({error!r})"
    return Section(key="simulation", title="Simulated A/B tests", parts=parts)


def _parts(found: Mapping[str, Any]) -> dict[str, Any]:
    lifts = {name: of_pair["gmv"] for name, of_pair in found["lifts"].items()}
    order = [*(name for name in _LIFTS if name in lifts), *(name for name in lifts if name not in _LIFTS)]
    shown = [(_LIFTS.get(name, name.replace("_", " ")), name, _triple(lifts[name])) for name in order]
    shown.append(("A/A as a real test would see it: users split, CUPED", "aa_randomised", _triple(found["aa_lift"])))
    placed, zero = whiskers([triple for _, _, triple in shown], zero=False)
    return {
        "worlds": found["worlds"],
        "zero": zero,
        "lifts": [
            {"name": words, "value": triple, "whisker": whisker, "paper": found["paper"].get(name, [])}
            for (words, name, triple), whisker in zip(shown, placed, strict=True)
        ],
        "consumption": (found["consumption_ratio"], found["paper"].get("consumption_ratio", [])),
        "arms": list(found["arms"].items()),
        "figures": [name for name in _FIGURES if any(name in figures for figures in found["arms"].values())],
        "sweeps": _sweeps(found["sweep"]),
        "sweep_worlds": found["sweep_worlds"],
        "parameters": found["parameters"],
    }


def _sweeps(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one table a parameter: both lifts at each value, on one scale."""
    made = []
    for parameter in dict.fromkeys(row["parameter"] for row in rows):
        own = [row for row in rows if row["parameter"] == parameter]
        placed, zero = whiskers([_triple(row[name][_SWEPT]) for row in own for name in _SWEEPS], zero=False)
        made.append(
            {
                "parameter": parameter.replace("_", " "),
                "other_is": own[0]["other_is"],
                "zero": zero,
                "rows": [
                    {
                        "value": row["value"],
                        "branch": (_triple(row["branch"][_SWEPT]), placed[2 * at]),
                        "other": (_triple(row["other"][_SWEPT]), placed[2 * at + 1]),
                        "consumption": row["consumption_ratio"],
                    }
                    for at, row in enumerate(own)
                ],
            }
        )
    return made


def _real(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return both clocks' figures of each arm, and how the real one's lists were."""
    return {
        "deadline_s": found["deadline_s"],
        "users": found["parameters"]["users"],
        "figures": _CLOCKS,
        "arms": [
            {
                "name": name,
                "clocks": [(clock, [arm[clock][figure] for figure in _CLOCKS]) for clock in ("fast", "real")],
                **{key: arm[key] for key in ("due", "fresh_share", "equal_share", "common", "visible_s")},
            }
            for name, arm in found["arms"].items()
        ],
    }


def _triple(interval: Mapping[str, float]) -> Triple:
    return interval["mean"], interval["low"], interval["high"]
