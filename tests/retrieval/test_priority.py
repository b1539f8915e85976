from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from leadre.errors import InvalidInput
from leadre.retrieval.priority import GROUPS, arpu_groups


def test_75_different_users_fill_25_groups_of_three() -> None:
    groups = arpu_groups(np.random.default_rng(3).permutation(75).astype(float))
    assert np.bincount(groups, minlength=GROUPS).tolist() == [3] * 25


def test_users_without_revenue_share_the_lowest_group() -> None:
    assert arpu_groups(np.array([0.0] * 90 + [1.0] * 10)).tolist() == [0] * 90 + [22] * 10


def test_no_users_make_no_groups() -> None:
    assert arpu_groups(np.array([])).shape == (0,)


def test_an_arpu_that_is_not_a_number_is_refused_by_row() -> None:
    with pytest.raises(InvalidInput, match="row 2"):
        arpu_groups(np.array([1.0, np.nan]))


@given(hnp.arrays(np.float64, st.integers(1, 80), elements=st.integers(0, 9).map(float)))
def test_more_revenue_is_never_a_lower_group_and_equal_revenue_an_equal_one(arpu: np.ndarray) -> None:
    groups = arpu_groups(arpu)
    assert groups.min() == 0
    assert groups.max() < GROUPS
    order = np.argsort(arpu, kind="stable")
    assert (np.diff(groups[order]) >= 0).all()
    assert (np.diff(groups[order])[np.diff(arpu[order]) == 0] == 0).all()


def test_a_user_leaves_its_group_only_beyond_the_margin() -> None:
    arpu = np.arange(100, dtype=float)  # four users a group
    before = arpu_groups(arpu)
    moved = arpu.copy()
    moved[[11, 12]] = 12.0, 11.0  # across the boundary between groups 2 and 3, places 2.75 and 3
    assert arpu_groups(moved, before=before, margin=0.3)[[11, 12]].tolist() == [2, 3]
    assert arpu_groups(moved, before=before)[[11, 12]].tolist() == [3, 2]
    moved[11] = 99.5
    assert arpu_groups(moved, before=before, margin=0.3)[11] == 24


@given(
    hnp.arrays(np.float64, 60, elements=st.integers(0, 30).map(float)),
    hnp.arrays(np.float64, 60, elements=st.integers(0, 30).map(float)),
    st.floats(0, 2),
)
def test_nobody_is_further_from_its_place_than_the_margin(first, then, margin) -> None:
    before = arpu_groups(first)
    groups = arpu_groups(then, before=before, margin=margin)
    place = np.searchsorted(np.sort(then), then) * GROUPS / 60
    assert ((place >= groups - margin) & (place < groups + 1 + margin)).all()
    assert (arpu_groups(then, before=groups, margin=margin) == groups).all()
