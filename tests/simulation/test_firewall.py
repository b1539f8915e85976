"""The world's truth is never visible to what retrieves, ranks or sells."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from leadre import simulation
from leadre.recipe import PromptRecipe
from leadre.simulation.arms import CONTROL
from leadre.simulation.journal import Journal
from leadre.simulation.loop import State, decide, run_arm
from leadre.simulation.nature import Nature, instant, make_nature
from leadre.simulation.observed import Observed
from leadre.simulation.parameters import Parameters
from leadre.simulation.rivals.system import System, build_system
from leadre.synthetic import Truth

FOLDER = Path(simulation.__file__).parent
KNOWING = {"nature.py", "loop.py", "worlds.py", "run.py"}
"""Who may import the truth: its own module, the loop in which users answer, and who makes worlds."""
SMALL = Parameters(users=60, ads=140, history_visits=6, visits=2, ticks=4, rehearsal=1)
RECIPE = PromptRecipe()


@pytest.fixture(scope="module")
def world() -> tuple[Nature, Observed, System]:
    nature, observed = make_nature(SMALL, seed=3)
    return nature, observed, build_system(observed, recipe=RECIPE, release=None, beam_width=5, seed=3)


def test_only_the_loop_imports_the_truth() -> None:
    for path in FOLDER.rglob("*.py"):
        if path.name in KNOWING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {"leadre.synthetic", "leadre.simulation.nature"} & set(names), path.name


def test_what_is_observed_holds_nothing_of_the_truth() -> None:
    assert not {each.name for each in fields(Observed)} & {each.name for each in fields(Truth)}


def test_another_truth_behind_the_same_log_decides_nothing(world: tuple[Nature, Observed, System]) -> None:
    nature, observed, system = world
    visitors = nature.visits.users[nature.visits.ticks == 0]
    now = instant(0, observed=observed, parameters=SMALL)

    def decided() -> np.ndarray:
        found = decide(
            CONTROL, Journal(observed, recipe=RECIPE), system, visitors, now=now, parameters=SMALL, stored=None
        )
        return np.stack([found.ads, found.probability])

    before = decided()
    truth = nature._truth
    nature._truth = replace(truth, quality=-truth.quality, follow_up=truth.follow_up[::-1])
    try:
        assert np.array_equal(decided(), before)
    finally:
        nature._truth = truth


def test_arms_of_one_luck_have_the_same_dice_and_arms_of_another_have_others() -> None:
    (one, _), (same, _), (other, _) = (make_nature(SMALL, seed=4, luck=luck) for luck in (0, 0, 1))
    assert np.array_equal(one.market, same.market)
    for again in (same, other):
        assert again.visits.users.tolist() == one.visits.users.tolist()
        assert again.visits.content == one.visits.content
    assert not np.array_equal(one.market, other.market)
    visits, ads = np.arange(20), np.tile(np.arange(10), (20, 1))
    assert np.array_equal(one.outcomes(visits, ads)[0], same.outcomes(visits, ads)[0])


def test_the_loop_is_closed_and_its_sums_agree(world: tuple[Nature, Observed, System]) -> None:
    nature, observed, system = world
    state = State(journal=Journal(observed, recipe=RECIPE), nearline=None)
    before = len(state.journal.ad_histories.items)
    measured, log = run_arm(CONTROL, nature, system, state, parameters=SMALL, ticks=range(SMALL.all_ticks))
    assert len(state.journal.ad_histories.items) - before == measured.clicks.sum() > 0
    assert len(log.clicked) == measured.impressions.sum()
    assert log.clicked.sum() == measured.clicks.sum() >= measured.conversions.sum()
    assert measured.exclusive.sum() == 0
    assert (measured.categories >= 0).sum() == measured.impressions.sum()


def test_the_same_arm_twice_brings_the_same(world: tuple[Nature, Observed, System]) -> None:
    nature, observed, system = world
    found = [
        run_arm(
            CONTROL,
            nature,
            system,
            State(journal=Journal(observed, recipe=RECIPE), nearline=None),
            parameters=SMALL,
            ticks=range(3),
        )[0]
        for _ in range(2)
    ]
    assert found[0].gmv.tolist() == found[1].gmv.tolist()
    assert found[0].revenue.tolist() == found[1].revenue.tolist()


def test_ads_that_have_ended_are_never_shown_and_new_ones_can_be(world: tuple[Nature, Observed, System]) -> None:
    _, observed, system = world
    assert not observed.live[observed.launched].all()
    assert observed.live[~observed.launched].any()
    nature, _ = make_nature(SMALL, seed=3)
    visitors = nature.visits.users[nature.visits.ticks == 0]
    now = instant(0, observed=observed, parameters=SMALL)
    found = decide(CONTROL, Journal(observed, recipe=RECIPE), system, visitors, now=now, parameters=SMALL, stored=None)
    assert observed.live[found.ads[found.ads >= 0]].all()


def test_cold_users_have_done_nothing(world: tuple[Nature, Observed, System]) -> None:
    _, observed, _ = world
    assert observed.cold
    assert not {each.user_id for each in observed.behaviors} & set(observed.cold)
    assert not {each.user_id for each in observed.impressions} & set(observed.cold)
