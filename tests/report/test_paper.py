"""Tables of the paper in the report: the commands' own JSON, ours over the paper's, and what was not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from leadre.evaluation.bootstrap import Interval
from leadre.experiments.index_sweep.table import Sweep, SweepRow
from leadre.experiments.result import Curve, Experiment, Measured, tabulate
from leadre.pipelines.results import keep_result, read_figures, read_results
from tests.report.conftest import NOW, section

PageOf = Callable[..., str]


def an_experiment(name: str = "table1") -> Experiment:
    hits = np.linspace(0, 1, 40)[None, :, None] * np.ones((2, 1, 1))
    return tabulate(
        {"w/o <x>": Measured(metrics=("HR@8",), values=hits), "full": Measured(metrics=("HR@8",), values=hits / 2)},
        name=name,
        title="Table 1: components of the prompt",
        note="a made-up world",
        seeds=(0, 1),
        metrics=("HR@8",),
        paper={"w/o <x>": {"HR@8": 0.1234}, "full": {"HR@8": 0.2468}},
        seed=0,
    )


def test_an_experiments_table_stands_over_the_papers_with_its_verdicts(page_of: PageOf, tmp_path: Path) -> None:
    keep_result(tmp_path, "table1", an_experiment().to_json(), command="leadre experiment table1 a.toml", now=NOW)
    shown = section(page_of(results=read_results(tmp_path)), "paper")
    for said in ("0.5000", "0.2500", "paper 0.1234", "w/o &lt;x&gt;", "opposite direction", "-50.0 %", "+100.0 %"):
        assert said in shown
    assert "2026-03-01 00:00 UTC" in shown
    assert "leadre experiment table1 a.toml" in shown
    assert "leadre experiment table1 recipes" not in shown  # it was run
    assert "leadre experiment table2 recipes/demo.toml" in shown  # this one was not


def test_a_figures_lines_are_drawn_and_named(page_of: PageOf, tmp_path: Path) -> None:
    points = tuple(Interval(mean=y, low=y - 0.1, high=y + 0.1) for y in (0.2, 0.4))
    made = an_experiment("figure4a").to_json()
    made["curves"] = [
        {"panel": "HR", "name": name, "x": [1.0, 8.0], "y": [one.to_json() for one in points]} for name in ("a", "b")
    ]
    assert set(made["curves"][0]) == set(Curve.__dataclass_fields__)
    keep_result(tmp_path, "figure4a", made, command="", now=NOW)
    shown = section(page_of(results=read_results(tmp_path)), "paper")
    assert shown.count("<polyline") == 2
    assert shown.count("<polygon") == 2
    assert "<title>Table 1: components of the prompt, HR</title>" in shown


def test_a_sweep_and_encoders_are_tables_5_and_3(page_of: PageOf, tmp_path: Path) -> None:
    quality = {"collision_rate": 0.0421, "max_collision": 3, "average_usage": 0.97}
    row = SweepRow(quantiser="rqvae", levels=3, codes=256, assignment="nearest", quality=quality)
    sweep = Sweep(ads=10, encoder="hashed", identical=0.0, category_bits=1.0, rows=(row,))
    keep_result(tmp_path, "table5", sweep.to_json(), command="", now=NOW)
    encoders = {
        "level": "second",
        "categories": 3,
        "ads": 9,
        "categories_hidden": False,
        "chance": 0.25,
        "accuracy": {"hashed": {1: 0.625}},
        "paper": {"bge-m3": {1: 0.95}},
    }
    keep_result(tmp_path, "table3", encoders, command="", now=NOW)
    shown = section(page_of(results=read_results(tmp_path)), "paper")
    for said in (
        "0.0421",
        "paper 0.1638",
        "paper 67",
        "every code is used",
        "0.6250",
        "0.9500",
        "the paper&#39;s bge-m3",
    ):
        assert said in shown


def test_a_file_that_is_no_result_costs_the_page_one_table(page_of: PageOf, tmp_path: Path) -> None:
    keep_result(tmp_path, "table1", an_experiment().to_json(), command="", now=NOW)
    keep_result(tmp_path, "table2", {"rows": 3}, command="", now=NOW)
    (tmp_path / "results/table4.json").write_text("{")
    shown = section(page_of(results=read_results(tmp_path)), "paper")
    assert "table2.json has another shape" in shown
    assert "table4.json cannot be read" in shown
    assert "paper 0.1234" in shown


def test_of_a_benchmarks_file_the_last_line_counts(tmp_path: Path) -> None:
    (tmp_path / "bench_a.json").write_text('servers are up\n{"ratio": 2.5}\n')
    (tmp_path / "bench_b.json").write_text('{\n "ratio": 3\n}\n')
    (tmp_path / "bench_c.json").write_text("[1]")
    (tmp_path / "bench_d.json").write_text("")
    found = {one.name: one for one in read_figures(tmp_path)}
    assert found["bench_a"].figures == {"ratio": 2.5}
    assert found["bench_b"].figures == {"ratio": 3}
    assert "holds no JSON object" in found["bench_c"].problem
    assert "bench_d.json cannot be read" in found["bench_d"].problem
