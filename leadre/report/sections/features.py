"""What a ranker reads: whether it is there, fresh, and like before. LEADRE §5.3."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from leadre.evaluation.drift import MUCH_DRIFT, SOME_DRIFT
from leadre.pipelines.feature_quality import figures
from leadre.pipelines.feature_quality.check import FeatureQuality
from leadre.pipelines.feature_quality.figures import Figure, Histogram
from leadre.report.content import Report, Section
from leadre.report.plots import shares, short

_HISTOGRAMS = {
    "retrieved_count": "ads in a list",
    "top_probability": "probability of the first ad",
    "entropy": "entropy of a list, nats",
}
_OF_VIEWS = ("age_seconds", "online_behind_ratio", "online_lag_seconds")


def features(report: Report) -> Section:
    """Return the section; parts that could not be measured are empty, and the samples say why."""
    quality = report.features
    drawn = {histogram.name: histogram for histogram in quality.histograms}
    views = {figure.of["view"]: _cells(quality, view=figure.of["view"]) for figure in quality.of("age_seconds")}
    told = {*_OF_VIEWS, "psi"}
    return Section(
        key="features",
        title="Features",
        parts={
            "samples": quality.samples,
            "views": [{"view": view, "cells": cells} for view, cells in views.items()],
            "figures": [_figure(figure) for figure in quality.figures if figure.name not in told],
            "histograms": [_histogram(drawn[name], title) for name, title in _HISTOGRAMS.items() if name in drawn],
            "drift": [{**_figure(figure), "verdict": _verdict(figure)} for figure in quality.of("psi")],
        },
    )


def _verdict(figure: Figure) -> str:
    if figure.value is None:
        return figure.note
    return "much" if figure.value > MUCH_DRIFT else "some" if figure.value > SOME_DRIFT else "none"


def _histogram(drawn: Histogram, title: str) -> dict[str, Any]:
    of_all = [100 * count / max(sum(drawn.counts), 1) for count in drawn.counts]
    bars = [
        {"name": f"{short(low)} to {short(high)}", "value": share, "height": height}
        for (low, high), share, height in zip(pairwise(drawn.edges), of_all, shares(of_all), strict=True)
    ]
    return {"title": title, "bars": bars, "first": short(drawn.edges[0]), "last": short(drawn.edges[-1])}


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
