"""The experiment through a real User Server, queue and Celery worker says what the fast clock says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leadre.cli.experiments.simulate import print_real
from leadre.cli.terminal import console
from leadre.recipe import Recipe
from leadre.simulation.arms import BRANCH, FEATURES, SUMS, Measured
from leadre.simulation.measure.result import write_result
from leadre.simulation.parameters import Parameters
from leadre.simulation.real.compare import Noted, compare
from leadre.simulation.real.nearline import Seen
from leadre.simulation.real.run import run_real

TINY = Parameters(users=24, ads=130, history_visits=5, visits=1, ticks=2, rehearsal=1, beam_width=4, limit=8)


class Nobody:
    """A nearline that is only looked at."""


def noted(*visits: tuple[int, tuple[int, ...], tuple[int, ...]]) -> tuple[Measured, Noted]:
    made = Noted(Nobody())  # type: ignore[arg-type]
    made.visits = list(visits)
    sums = {name: np.ones(3) for name in SUMS}
    return Measured(**sums, categories=np.zeros((1, 4), np.int64), ads_shown=1, lists_llm=1, lists_cheap=0), made


def test_only_lists_that_are_fresh_are_compared_and_other_clicks_are_told_apart() -> None:
    fast = noted((0, (1, 2), ()), (1, (1, 2), ()), (2, (1, 2), (7,)), (3, (), ()))
    real = noted((0, (1, 2), ()), (1, (2, 1), ()), (2, (1, 3), (8,)), (3, (), ()))
    times = ((True, True, 0.5), (True, True, 1.5), (True, True, None), (False, True, None))
    seen = [Seen(due=due, fresh=fresh, visible_s=visible_s) for due, fresh, visible_s in times]
    found = compare(BRANCH, fast, real, seen=seen, unanswered=0)
    assert (found.visits, found.due, found.fresh, found.equal, found.after_other_clicks) == (4, 3, 3, 1, 1)
    assert found.common == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.visible_s == (1.0, pytest.approx(1.45))


def test_without_a_list_in_time_there_are_no_times() -> None:
    seen = [Seen(due=True, fresh=False, visible_s=None)]
    found = compare(BRANCH, noted((0, (1,), ())), noted((0, (), ())), seen=seen, unanswered=2)
    assert found.to_json()["visible_s"] is None
    assert (found.fresh_share, found.equal_share) == (0.0, 0.0)


def test_the_section_real_stays_beside_what_is_there_and_goes_on_being_there(tmp_path: Path) -> None:
    write_result(tmp_path, {"simulation": True, "worlds": 5})
    write_result(tmp_path, {"simulation": True, "real": {"seed": 1}})
    path = write_result(tmp_path, {"worlds": 6})
    assert json.loads(path.read_text()) == {"simulation": True, "worlds": 6, "real": {"seed": 1}}


@pytest.mark.slow
def test_servers_and_a_worker_give_the_lists_of_the_fast_clock(
    home: Path, tiny_recipe: Recipe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", 160)
    found = run_real(
        home=home, parameters=TINY, seed=1, deadline_s=60.0, tick_s=1.0, arms=(FEATURES,), recipe=tiny_recipe
    )
    (arm,) = found.arms
    assert arm.visits == TINY.users
    assert 0 < arm.due == arm.fresh  # 60 s are enough for any machine
    assert arm.visible_s is not None
    assert arm.equal_share > 0.9
    assert arm.real["lists_llm"] > 0
    assert arm.real["impressions"] == pytest.approx(arm.fast["impressions"], rel=0.2)
    print_real(found)
    printed = capsys.readouterr().out
    assert "SIMULATION" in printed
    assert "equal of the fresh" in printed
