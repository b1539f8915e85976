"""Does it find the next ad: hit ratios beside baselines, what DPO did to eCPM. LEADRE §5.1.2, §5.2.2, Figure 4 (b)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leadre.report.content import Report, Section
from leadre.report.plots import Triple, whiskers

SYSTEMS = {
    "leadre": "LEADRE",
    "popularity": "popularity",
    "co_visitation": "co-visitation",
    "sasrec": "SASRec",
    "tiger": "TIGER",
    "collaborative": "collaborative signal",
}
_VIEWS = {
    "canonical": "All users, in the data's own order",
    "untied": "Users whose two held-out ads have different times",
    "shuffled": "Held-out ads of one time in random order",
}
_NOT_EVALUATED = "leadre evaluate"


def quality(report: Report) -> Section:
    """Return the section; a release that was never evaluated says how to."""
    evaluation = report.evaluation
    if not evaluation:
        return Section(key="quality", title="Does it find the next ad?", parts={"run": _NOT_EVALUATED})
    views = [view for view in _VIEWS if view == "canonical" or evaluation["tied"]]
    return Section(
        key="quality",
        title="Does it find the next ad?",
        parts={
            "run": "",
            "users": evaluation["users"],
            "simulated_ecpm": evaluation["simulated_ecpm"],
            "bars": _bars(evaluation),
            "tables": [_table(evaluation, view) for view in views],
            "dpo": _dpo(report),
        },
    )


def metrics_of(evaluation: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    """Return the names of the evaluation's metrics, in its order."""
    return [name for name in evaluation["metrics"]["leadre"]["canonical"] if name.startswith(prefix)]


def figures_of(evaluation: Mapping[str, Any], view: str) -> dict[str, dict[str, Triple]]:
    """Return system, metric -> mean, low, high; LEADRE first."""
    return {
        SYSTEMS.get(system, system): {
            name: (figure["mean"], figure["low"], figure["high"]) for name, figure in by_view[view].items()
        }
        for system, by_view in evaluation["metrics"].items()
    }


def _bars(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, for the smallest and the largest cutoff, every system on one scale."""
    by_system = figures_of(evaluation, "canonical")
    ratios = metrics_of(evaluation, prefix="HR@")
    made = []
    for metric in dict.fromkeys((ratios[0], ratios[-1])):
        triples = [values[metric] for values in by_system.values()]
        placed, _ = whiskers(triples, zero=True)
        rows = [
            {"name": name, "ours": place == 0, "value": triple, "whisker": whisker}
            for place, (name, triple, whisker) in enumerate(zip(by_system, triples, placed, strict=True))
        ]
        made.append({"metric": metric, "rows": rows})
    return made


def _table(evaluation: Mapping[str, Any], view: str) -> dict[str, Any]:
    metrics = metrics_of(evaluation)
    rows = [
        {"name": system, "ours": place == 0, "cells": [values[metric] for metric in metrics]}
        for place, (system, values) in enumerate(figures_of(evaluation, view).items())
    ]
    return {"title": _VIEWS[view], "metrics": metrics, "rows": rows}


def _dpo(report: Report) -> list[dict[str, Any]]:
    """Return what DPO changed, in per cent of the figure before."""
    if not report.before_dpo:
        return []
    before, after = report.before_dpo, report.evaluation
    pairs = [("mean eCPM of the top 8", *(e["lists"]["leadre"]["mean_ecpm"] for e in (before, after)))]
    pairs += [
        (name, *(e["metrics"]["leadre"]["canonical"][name]["mean"] for e in (before, after)))
        for name in metrics_of(after, prefix="HR@")
    ]
    known = (set(e["lists"]["leadre"].get("ltrr", ())) for e in (before, after))
    pairs += [
        (name, *(e["lists"]["leadre"]["ltrr"][name] for e in (before, after)))
        for name in sorted(set.intersection(*known))
    ]
    pairs += [("diversity score", *(e["lists"]["leadre"]["diversity"] for e in (before, after)))]
    return [
        {"name": name, "before": old, "after": new, "change": 100 * (new - old) / old if old else None}
        for name, old, new in pairs
    ]
