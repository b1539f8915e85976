"""Two releases side by side: S-IDs that moved, lists that changed, figures with their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.report.comparison import Comparison, index_drift, overlap
from leadre.synthetic import make_world
from tests.live_world import small_index
from tests.report.conftest import NOW, evaluation, section


@pytest.fixture(scope="module")
def world():
    return make_world(seed=5, ads=96, users=4, sessions=1, slate=3, days=5, now=NOW)


def test_an_index_beside_itself_has_not_drifted(world) -> None:
    index = small_index(world)
    found = index_drift(index, index)
    assert (found.same, found.common, found.added, found.removed, found.kept) == (True, 96, 0, 0, 1.0)
    assert found.neighbours == (1.0, 1.0)


def test_drift_counts_new_and_lost_ads_and_who_left_their_neighbours(world) -> None:
    before = small_index(world)
    found = index_drift(small_index(replace(world, ads=world.ads[4:])), before)
    assert (found.common, found.added, found.removed) == (92, 0, 4)
    assert all(0 < alike <= 1 for alike in found.neighbours)


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 9), unique=True, max_size=9)] * 2), max_size=5))
def test_overlap_is_a_share_and_whole_for_equal_lists(pairs) -> None:
    assert all(0 <= share <= 1 for share in overlap(pairs).values())
    same = [(ours, ours) for ours, _ in pairs if ours]
    assert set(overlap(same).values()) <= {1.0}
    assert bool(overlap(pairs)) is bool(pairs)


def test_the_first_eight_are_compared_as_sets() -> None:
    ours, theirs = [*range(10)], [7, 6, 5, 4, 103, 102, 101, 100, 0]
    assert overlap([(ours, theirs)]) == {1: 0.0, 8: 0.5}


def test_figures_apart_are_told_from_figures_that_may_be_the_same(page_of: Callable[..., str]) -> None:
    def found(mean: float) -> str:
        made = Comparison(
            against="r<0>",
            promoted_at=NOW - timedelta(days=1),
            evaluation=evaluation(mean=mean),
            drift=None,
            users=3,
            overlap={1: 0.5, 8: 0.25},
        )
        return section(page_of(comparison=made), "comparison")

    assert "r&lt;0&gt;" in found(0.43)
    assert "intervals overlap" in found(0.43)
    assert "intervals lie apart" in found(0.2)
    assert 'class="up">+116.' in found(0.2)
    assert "25.0 %" in found(0.2)


def test_groups_are_alike_whatever_their_codes_are_called(world) -> None:
    index = small_index(world)
    renamed = replace(index, codes=_renamed(np.asarray(index.codes)))
    found = index_drift(renamed, index)
    assert found.kept < 1
    assert found.neighbours[0] == 1.0


def _renamed(codes):
    """The first codes in reverse, the groups the same."""
    made = codes.copy()
    made[:, 0] = codes[:, 0].max() - codes[:, 0]
    return made
