"""How it learned: the loss of every stage, and the validation's hit ratio. LEADRE §4.3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leadre.report.content import Report, Section
from leadre.report.plots import chart, short


def learning(report: Report) -> Section:
    """Return the section."""
    stages = _stages(report.curves)
    validated = [
        (at, float(p["hr_10"])) for points in stages.values() for at, p in points if p.get("hr_10") is not None
    ]
    losses = {stage: [(at, float(point["loss"])) for at, point in points] for stage, points in stages.items()}
    return Section(
        key="learning",
        title="How it learned",
        parts={
            "loss": chart(losses, marks=[points[-1][0] for points in list(losses.values())[:-1]]) if losses else None,
            "hits": chart({"validation HR@10": validated}, from_zero=True) if validated else None,
            "rows": [
                {
                    "stage": stage,
                    "steps": short(float(points[-1][1]["step"])),
                    "first": points[0][1],
                    "last": points[-1][1],
                }
                for stage, points in stages.items()
            ],
        },
    )


def _stages(curves: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, Mapping[str, Any]]]]:
    """Return the points of each stage over the steps of all, one stage after the other."""
    found: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    offset = 0.0
    for stage in dict.fromkeys(str(point["stage"]) for point in curves):
        found[stage] = [(offset + float(point["step"]), point) for point in curves if point["stage"] == stage]
        offset = found[stage][-1][0]
    return found
