"""Writes report.html: one file, no network, every figure from a run. LEADRE §5.

Ad titles and other text from outside are escaped by the template engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from leadre.report.content import Report
from leadre.report.sections import SECTIONS
from leadre.report.sections.quality import figures_of


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    environment = Environment(
        loader=PackageLoader("leadre.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        report=report,
        cards=_cards(report),
        sections=[make(report) for make in SECTIONS],
        recipe_text=json.dumps(report.recipe, indent=2),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page)
    unfinished.replace(path)


def _cards(report: Report) -> Sequence[dict[str, str]]:
    """Return what is seen first; a figure that nobody measured has no card."""
    cards = []
    if report.evaluation:
        largest = max(report.evaluation["cutoffs"])
        by_system = figures_of(report.evaluation, "canonical")
        ours = by_system.pop("LEADRE")
        best = max(by_system, key=lambda system: by_system[system][f"HR@{largest}"][0], default=None)
        for metric in dict.fromkeys((f"HR@{largest}", "HR@1")):
            if metric in ours:
                beside = f"{best}: {by_system[best][metric][0]:.3f}" if best is not None else ""
                cards.append({"value": f"{ours[metric][0]:.3f}", "label": metric, "beside": beside})
        cards.append({"value": f"{report.evaluation['users']:,}", "label": "users evaluated", "beside": ""})
    cards.append({"value": f"{report.quality['ads']:,}", "label": "ads in the index", "beside": ""})
    if report.health:
        faults = sum(finding.state == "fault" for finding in report.health)
        cards.append({"value": str(faults), "label": f"fault{'s' * (faults != 1)} found by the doctor", "beside": ""})
    return cards
