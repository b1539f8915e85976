"""Writes report.html: one file, no network, every figure from a run.

Ad titles and other text from outside are escaped by the template engine.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leadre.evaluation.drift import MUCH_DRIFT, SOME_DRIFT
from leadre.explain import prompt_parts
from leadre.indexing.quality import warning_of
from leadre.pipelines.feature_quality import figures
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.pipelines.feature_quality.figures import Figure
from leadre.report import plots
from leadre.report.trace import SHOWN_FEATURES, Trace, label, written


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page shows.

    Args:
        release: name of the release.
        index_version: its index.
        dataset: what it was trained on, for the title.
        now: when the report was made.
        counts: rows per table.
        recipe: the recipe's plain form.
        quality: the index's quality report (leadre.indexing.quality).
        curves: the training curve's points.
        evaluation: the evaluation's plain form (leadre.pipelines.learning.measures), of the release.
        before_dpo: the evaluation of the same model before DPO, if there was DPO.
        trace: one user's walk.
        features: the quality of the features in the database at hand.
    """

    release: str
    index_version: str
    dataset: str
    now: datetime
    counts: Mapping[str, int]
    recipe: Mapping[str, Any]
    quality: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    before_dpo: Mapping[str, Any] | None
    trace: Trace | None
    features: FeatureQuality


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    views = [view for view in _VIEWS if view == "canonical" or report.evaluation["tied"]]
    environment = Environment(loader=PackageLoader("leadre.report", "."), autoescape=True, undefined=StrictUndefined)
    quality = report.quality
    page = environment.get_template("page.html").render(
        report=report,
        cards=_cards(report),
        bars=plots.quality_bars(_figures(report.evaluation, "canonical"), _metrics(report.evaluation, prefix="HR@")),
        index_warning=warning_of(quality),
        quality_tables=[_quality_table(report.evaluation, view) for view in views],
        dpo=_dpo(report),
        curves=plots.training_curves(report.curves),
        usage=plots.level_bars(quality["usage"], title="usage", limit=1.0),
        entropy=plots.level_bars(
            quality["entropy_bits"], title="entropy, bits", limit=math.log2(report.recipe["index"]["codes"])
        ),
        purity=plots.level_bars(quality["category_purity"], title="category purity", limit=1.0),
        features=_features(report.features),
        walk=_walk(report.trace) if report.trace else None,
        parts=list(prompt_parts(report.trace.prompt)) if report.trace else [],
        recipe_text=json.dumps(report.recipe, indent=2),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page)
    unfinished.replace(path)


_NAMES = {
    "leadre": "LEADRE",
    "popularity": "popularity",
    "co_visitation": "co-visitation",
    "sasrec": "SASRec",
    "tiger": "TIGER",
}
_VIEWS = {
    "canonical": "All users, in the data's own order",
    "untied": "Users whose two held-out ads have different times",
    "shuffled": "Held-out ads of one time in random order",
}
_USER_SIDE = ("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm", "list_age_s")


def _metrics(evaluation: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    return [name for name in evaluation["metrics"]["leadre"]["canonical"] if name.startswith(prefix)]


def _figures(evaluation: Mapping[str, Any], view: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    return {
        _NAMES.get(system, system): {
            name: (figure["mean"], figure["low"], figure["high"]) for name, figure in by_view[view].items()
        }
        for system, by_view in evaluation["metrics"].items()
    }


def _quality_table(evaluation: Mapping[str, Any], view: str) -> dict[str, Any]:
    metrics = _metrics(evaluation)
    rows = [
        {"name": system, "ours": place == 0, "cells": [values[metric] for metric in metrics]}
        for place, (system, values) in enumerate(_figures(evaluation, view).items())
    ]
    return {"title": f"{_VIEWS[view]}", "metrics": metrics, "rows": rows}


def _cards(report: Report) -> list[dict[str, str]]:
    largest = max(report.evaluation["cutoffs"])
    by_system = _figures(report.evaluation, "canonical")
    ours = by_system.pop("LEADRE")
    best = max(by_system, key=lambda system: by_system[system][f"HR@{largest}"][0], default=None)

    def card(metric: str) -> dict[str, str]:
        beside = f"; {best}: {by_system[best][metric][0]:.3f}" if best is not None else ""
        return {"value": f"{ours[metric][0]:.3f}", "label": metric + beside}

    return [
        card(f"HR@{largest}"),
        *([card("HR@1")] if "HR@1" in ours else []),
        {"value": f"{report.evaluation['users']:,}", "label": "users evaluated"},
        {"value": f"{report.quality['ads']:,}", "label": "ads in the index"},
    ]


def _dpo(report: Report) -> list[dict[str, Any]]:
    """Return what DPO changed, in percent of the figure before."""
    if report.before_dpo is None:
        return []
    before, after = report.before_dpo, report.evaluation
    pairs = [("mean eCPM of the top 8", *(e["lists"]["leadre"]["mean_ecpm"] for e in (before, after)))]
    pairs += [
        (name, *(e["metrics"]["leadre"]["canonical"][name]["mean"] for e in (before, after)))
        for name in _metrics(after, prefix="HR@")
    ]
    known = (set(e["lists"]["leadre"].get("ltrr", ())) for e in (before, after))
    pairs += [
        (name, *(e["lists"]["leadre"]["ltrr"][name] for e in (before, after)))
        for name in sorted(set.intersection(*known))
    ]
    pairs += [("diversity score", *(e["lists"]["leadre"]["diversity"] for e in (before, after)))]
    return [
        {"name": name, "before": old, "after": new, "change": 100 * (new - old) / old if old else 0.0}
        for name, old, new in pairs
    ]


_HISTOGRAMS = {
    "retrieved_count": "ads in a list",
    "top_probability": "probability of the first ad",
    "entropy": "entropy of a list, nats",
}


def _features(quality: FeatureQuality) -> dict[str, Any]:
    """Return the section's parts; those that could not be measured are empty, and the samples say why."""
    drawn = {histogram.name: histogram for histogram in quality.histograms}
    views = {figure.of["view"]: _cells(quality, view=figure.of["view"]) for figure in quality.of("age_seconds")}
    told = {*_OF_VIEWS, "psi"}
    return {
        "samples": quality.samples,
        "views": [{"view": view, "cells": cells} for view, cells in views.items()],
        "figures": [_figure(figure) for figure in quality.figures if figure.name not in told],
        "plots": [
            plots.histogram(drawn[name].edges, drawn[name].counts, title=title)
            for name, title in _HISTOGRAMS.items()
            if name in drawn
        ],
        "drift": [
            {
                **_figure(figure),
                "verdict": figure.note
                if figure.value is None
                else "much"
                if figure.value > MUCH_DRIFT
                else "some"
                if figure.value > SOME_DRIFT
                else "none",
            }
            for figure in quality.of("psi")
        ],
    }


_OF_VIEWS = ("age_seconds", "online_behind_ratio", "online_lag_seconds")


def _cells(quality: FeatureQuality, *, view: str) -> list[dict[str, Any]]:
    return [_figure(figure) for name in _OF_VIEWS for figure in quality.of(name) if figure.of["view"] == view]


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "title": figure.title,
        "of": ", ".join(figure.of.values()),
        "value": figures.written(figure.value),
        "bound": figure.bound,
        "out": figure.out,
    }


def _walk(trace: Trace) -> dict[str, Any]:
    profile = trace.context.profile
    known = [f"age {profile.age}" if profile.age is not None else "", profile.sex, profile.residence]
    known += [profile.education_level, profile.occupation, profile.consumption_level]
    probabilities = [math.exp(beam.log_probability) for beam in trace.retrieved.beams]
    columns = [name for name in SHOWN_FEATURES if name in trace.features]
    return {
        "profile": f"User {trace.user}: " + ", ".join(part for part in known if part),
        "beams": [
            {
                "ad": trace.ad_name(beam.ad_id),
                "name": trace.ads[beam.ad_id].name if beam.ad_id in trace.ads else "",
                "category": trace.ads[beam.ad_id].second_category if beam.ad_id in trace.ads else "",
                "sid": str(beam.sid),
                "probability": probability,
                "share": probability / max(probabilities),
            }
            for beam, probability in list(zip(trace.retrieved.beams, probabilities, strict=True))[:12]
        ],
        "user_features": {
            label(trace, name): written(trace.features[name][0]) for name in _USER_SIDE if name in trace.features
        },
        "item_columns": columns,
        "items": [
            {
                "ad": trace.ad_name(ad),
                "name": trace.ads[ad].name if ad in trace.ads else "",
                "cells": [written(trace.features[column][row]) for column in columns],
            }
            for row, ad in enumerate(trace.target_ads)
        ],
    }
