"""An experiment's pictures: differences for every one, lines where the paper draws lines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np

from leadre.evaluation.bootstrap import Interval
from leadre.experiments.plots import write_plots
from leadre.experiments.result import Curve, Experiment, Measured, tabulate

METRICS = ("HR@1", "HR@4", "HR@8", "NDCG@8")


def found(*, none: bool = False) -> Experiment:
    rng = np.random.default_rng(0)
    rows = {name: Measured(metrics=METRICS, values=rng.random((2, 30, 4)) * (not none)) for name in ("LEADRE", "less")}
    paper = {name: dict.fromkeys(METRICS, figure) for name, figure in (("LEADRE", 0.2), ("less", 0.1))}
    return tabulate(rows, name="tableX", title="T", note="", seeds=(0, 1), metrics=METRICS, paper=paper, seed=0)


def test_differences_and_curves_are_drawn_in_two_formats(tmp_path: Path) -> None:
    at = Interval(mean=0.5, low=0.4, high=0.6)
    curves = tuple(
        Curve(panel=panel, name=name, x=(1.0, 2.0), y=(at, at)) for panel in ("ads", "content") for name in ("A", "B")
    )
    written = write_plots(replace(found(), curves=curves, x_label="length"), tmp_path / "new")
    assert [path.name for path in written] == [
        f"{stem}.{suffix}" for stem in ("tableX_differences", "tableX") for suffix in ("png", "svg")
    ]
    texts = "".join(ET.parse(written[1]).getroot().itertext())
    assert all(text in texts for text in (*METRICS, "less", "the paper's", "2 seeds"))
    assert all(text in "".join(ET.parse(written[3]).getroot().itertext()) for text in ("content", "length", "B"))


def test_without_a_relative_difference_there_is_no_picture(tmp_path: Path) -> None:
    assert write_plots(found(none=True), tmp_path) == []
