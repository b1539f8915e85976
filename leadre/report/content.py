"""What a report is made from. Every figure in it was measured; what nobody measured is None or empty. LEADRE §5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from leadre.pipelines.doctor.finding import Finding
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.pipelines.results import Result
from leadre.report.comparison import Comparison
from leadre.report.trace import Trace
from leadre.retrieval.refresh_queue_stats import QueueStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows.

    Args:
        release: name of the release.
        live: whether it is the live one.
        index_version: its index.
        now: when the report was made.
        counts: rows per table.
        recipe: the recipe's plain form.
        quality: the index's quality report (leadre.indexing.quality).
        curves: the training curve's points; empty where the release has none.
        evaluation: the evaluation's plain form (leadre.pipelines.learning.measures); empty where there was none.
        before_dpo: the evaluation of the same model before DPO, if there was DPO.
        features: the quality of the features in the database at hand.
        trace: one user's walk; None of a release that is not live.
        results: tables and figures of the paper that were run, by name.
        simulation: what `leadre simulate` wrote; None where it was not run.
        benchmarks: what benchmarks printed.
        health: what the doctor found.
        queue: the refresh queue; None when Redis does not answer.
        comparison: with the release that was live before; None where there was none.
    """

    release: str
    live: bool
    index_version: str
    now: datetime
    counts: Mapping[str, int]
    recipe: Mapping[str, Any]
    quality: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    before_dpo: Mapping[str, Any] | None
    features: FeatureQuality
    trace: Trace | None = None
    results: Mapping[str, Result]
    simulation: Mapping[str, Any] | None = None
    benchmarks: Sequence[Result] = ()
    health: Sequence[Finding] = ()
    queue: QueueStats | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page.

    Args:
        key: its anchor, and the name of its template.
        title: its heading.
        parts: what its template shows.
    """

    key: str
    title: str
    parts: Mapping[str, Any]
