"""A whole simulation: worlds trained, arms run, lifts told; and that what is told is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leadre.cli.experiments.simulate import print_simulation
from leadre.cli.terminal import console
from leadre.recipe import Recipe
from leadre.simulation.arms import ARMS, BRANCH, CONTROL, FEATURES, SUMS, Measured
from leadre.simulation.measure.plots import write_plots
from leadre.simulation.measure.result import Simulation
from leadre.simulation.parameters import Parameters
from leadre.simulation.run import simulate, tell

TINY = Parameters(users=40, ads=130, history_visits=6, visits=1, ticks=2, rehearsal=1, beam_width=4, limit=8)


def measured(seed: int, *, gmv: float = 1.0) -> Measured:
    rng = np.random.default_rng(seed)
    sums = {name: rng.random(30) for name in SUMS} | {"gmv": gmv * np.random.default_rng(0).random(30)}
    sums |= {"impressions": np.full(30, 4.0), "exclusive": np.full(30, 1.0)}
    return Measured(**sums, categories=rng.integers(-1, 4, (60, 4)), ads_shown=9, lists_llm=3, lists_cheap=0)


@pytest.fixture
def told() -> Simulation:
    arms = {arm.name: [measured(world, gmv=1.1 if arm.leadre else 1.0) for world in range(3)] for arm in ARMS}
    spent = [np.random.default_rng(world).random(30) for world in range(3)]
    swept = {("cold", 0.5): {arm.name: arms[arm.name] for arm in (CONTROL, BRANCH, FEATURES)}}
    return tell(Parameters(), arms, spent, seeds=(1, 2, 3), sweep_seeds=(1,), swept=swept)


def test_lifts_are_those_of_what_was_measured(told: Simulation) -> None:
    found = told.to_json()
    assert found["simulation"] is True
    assert found["gmv_lift_branch"] == {name: pytest.approx(0.1) for name in ("mean", "low", "high")}
    assert found["gmv_lift_features"] == {name: pytest.approx(0.0) for name in ("mean", "low", "high")}
    assert found["aa_lift_other_luck"]["mean"] == pytest.approx(0.0)
    assert found["aa_lift"]["low"] <= 0 <= found["aa_lift"]["high"]
    assert found["consumption_ratio"] == pytest.approx(0.25)
    assert found["sweep"][0]["branch"]["gmv"]["mean"] == pytest.approx(0.1)


def test_a_result_is_written_whole_and_drawn(told: Simulation, tmp_path: Path) -> None:
    assert json.loads(told.write(tmp_path).read_text()) == json.loads(json.dumps(told.to_json()))
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    written = write_plots(told, tmp_path / "plots")
    assert "SIMULATION" in (tmp_path / "plots" / "simulation_lifts.svg").read_text()
    assert len(written) == 4


def test_the_tables_say_that_it_is_a_simulation(
    told: Simulation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 160)
    print_simulation(told)
    printed = capsys.readouterr().out
    assert "SIMULATION" in printed
    assert "+10.0% (+10.0% … +10.0%)" in printed


@pytest.mark.slow
def test_a_tiny_simulation_runs_from_end_to_end_and_trains_a_world_once(home: Path, tiny_recipe: Recipe) -> None:
    found = simulate(home=home, parameters=TINY, seeds=(1,), recipe=tiny_recipe)
    rows = {row.name: row.figures for row in found.arms}
    assert rows[CONTROL.name]["consumption_ratio"] == 0 < rows[BRANCH.name]["consumption_ratio"]
    assert rows[BRANCH.name]["lists_llm"] > 0
    trained = list((home / "worlds").glob("*/world.json"))
    for path in sorted((home / "arms").glob("*.npz"))[::2]:  # as if it had been stopped on the way
        path.unlink()
    again = simulate(home=home, parameters=TINY, seeds=(1,), recipe=tiny_recipe)
    assert list((home / "worlds").glob("*/world.json")) == trained
    assert again.to_json() == found.to_json()
