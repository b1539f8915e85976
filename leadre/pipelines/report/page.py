"""Writes report.html: one file, no network, every figure from a run.

Ad titles and other text from outside are escaped by the template engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leadre.pipelines.report import plots
from leadre.pipelines.trace import Trace, prompt_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows.

    Args:
        release: name of the release.
        dataset: what it was trained on, for the title.
        now: when the report was made.
        counts: rows per table.
        recipe: the recipe's plain form.
        quality: the index's quality report (leadre.indexing.quality).
        curves: the training curve's points.
        evaluation: the evaluation's plain form (leadre.pipelines.evaluate), of the release.
        before_dpo: the evaluation of the same model before DPO, if there was DPO.
        trace: one user's walk.
    """

    release: str
    dataset: str
    now: datetime
    counts: Mapping[str, int]
    recipe: Mapping[str, Any]
    quality: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    before_dpo: Mapping[str, Any] | None
    trace: Trace | None


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    environment = Environment(
        loader=PackageLoader("leadre.pipelines.report", "."), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html").render(
        report=report,
        parts=prompt_parts(report.trace.prompt) if report.trace else (),
        **_pictures(report),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page)
    unfinished.replace(path)
