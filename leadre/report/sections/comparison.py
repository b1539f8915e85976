"""The live release beside the one before it: figures, index, lists. LEADRE §4.4.1."""

from __future__ import annotations

from typing import Any

from leadre.report.content import Report, Section
from leadre.report.sections.quality import figures_of, metrics_of


def comparison(report: Report) -> Section:
    """Return the section; empty where no release was live before."""
    found = report.comparison
    parts: dict[str, Any] = {"found": found, "release": report.release, "live": report.live, "rows": []}
    if found is not None and found.evaluation and report.evaluation:
        ours = figures_of(report.evaluation, "canonical")["LEADRE"]
        theirs = figures_of(found.evaluation, "canonical")["LEADRE"]
        parts["rows"] = [
            _row(name, theirs[name], ours[name]) for name in metrics_of(report.evaluation) if name in theirs
        ]
        lists = [evaluation["lists"]["leadre"] for evaluation in (found.evaluation, report.evaluation)]
        for name in ("mean_ecpm", "diversity"):
            before, after = (one[name] for one in lists)
            parts["rows"].append(_row(name.replace("_", " ").replace("ecpm", "eCPM"), (before,), (after,)))
        parts["users"] = (found.evaluation["users"], report.evaluation["users"])
    return Section(key="comparison", title="Beside the release before", parts=parts)


def _row(name: str, before: tuple[float, ...], after: tuple[float, ...]) -> dict[str, Any]:
    apart = len(after) == 3 and (after[1] > before[2] or after[2] < before[1])
    return {
        "name": name,
        "before": before,
        "after": after,
        "change": 100 * (after[0] / before[0] - 1) if before[0] else None,
        "apart": apart,
        "verdict": "" if len(after) != 3 else "intervals lie apart" if apart else "intervals overlap",
    }
