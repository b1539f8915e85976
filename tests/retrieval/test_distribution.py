from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from leadre.errors import InvalidInput
from leadre.retrieval.distribution import LEAST, adaptive_cut, claim_index, freshness, group_values
from leadre.retrieval.priority import GROUPS

MEANS = hnp.arrays(np.float64, GROUPS, elements=st.floats(0, 1e6))
USERS = hnp.arrays(np.int64, GROUPS, elements=st.integers(0, 1000))
WAITING = hnp.arrays(np.int64, GROUPS, elements=st.integers(0, 500))


def test_a_group_is_worth_its_mean_and_the_lowest_a_little() -> None:
    means = np.arange(GROUPS, dtype=float)
    values = group_values(means, np.full(GROUPS, 4), smoothing=1.0)
    assert values[1:].tolist() == means[1:].tolist()
    assert values[0] == LEAST * means.mean()


def test_yesterday_counts_as_much_as_the_smoothing_leaves() -> None:
    before, today = np.full(GROUPS, 2.0), np.full(GROUPS, 4.0)
    assert group_values(today, np.ones(GROUPS, np.int64), before=before, smoothing=0.25).tolist() == [2.5] * GROUPS


def test_an_empty_group_is_worth_what_the_one_below_is() -> None:
    means, users = np.zeros(GROUPS), np.zeros(GROUPS, np.int64)
    means[[0, 22]], users[[0, 22]] = (1.0, 9.0), (90, 10)
    assert group_values(means, users, smoothing=1.0).tolist() == [1.0] * 22 + [9.0] * 3


def test_while_nobody_earns_all_are_worth_the_same() -> None:
    for users in (np.zeros(GROUPS, np.int64), np.ones(GROUPS, np.int64)):
        assert group_values(np.zeros(GROUPS), users, smoothing=0.5).tolist() == [1.0] * GROUPS


@given(MEANS, USERS, MEANS, st.floats(0.01, 1))
def test_values_never_fall_from_a_group_to_a_higher_one(means, users, before, smoothing) -> None:
    values = group_values(means, users, before=np.sort(before), smoothing=smoothing)
    assert (values > 0).all()
    assert (np.diff(values) >= -1e-9 * values[:-1]).all()


def test_wrong_shapes_and_smoothing_are_refused() -> None:
    with pytest.raises(InvalidInput, match="25 ARPU groups"):
        group_values(np.ones(3), np.ones(3, np.int64), smoothing=1.0)
    with pytest.raises(InvalidInput, match="smoothing is 0"):
        group_values(np.ones(GROUPS), np.ones(GROUPS, np.int64), smoothing=0)


def test_the_index_is_value_times_what_the_list_has_lost() -> None:
    index = claim_index(np.array([1.0, 1.0, 3.0]), np.array([0, 2, 1]), discount=0.8)
    assert index.tolist() == pytest.approx([0.0, 0.36, 0.6])


def test_the_llm_serves_groups_from_the_top_as_far_as_it_comes() -> None:
    waiting = np.full(GROUPS, 10)
    assert adaptive_cut(waiting, capacity=1000.0) == 0
    assert adaptive_cut(waiting, capacity=np.inf) == 0
    assert adaptive_cut(waiting, capacity=45.0) == 20  # 24 to 21 are 40 users; of 20's ten, five can be served
    assert adaptive_cut(waiting, capacity=0.0) == 24


def test_the_cut_rises_at_once_and_falls_by_one() -> None:
    nobody, all_of_them = np.zeros(GROUPS, np.int64), np.full(GROUPS, 100)
    assert adaptive_cut(all_of_them, capacity=100.0, before=0) == 24
    assert adaptive_cut(nobody, capacity=100.0, before=24) == 23


@given(WAITING, st.floats(0, 1e4), st.integers(0, GROUPS - 1))
def test_the_llm_is_never_left_idle_by_the_cut(waiting, capacity, before) -> None:
    cut = adaptive_cut(waiting, capacity=capacity)
    assert waiting[cut + 1 :].sum() < max(capacity, 1.0)  # it can serve more than the groups above the cut
    assert cut == 0 or waiting[cut:].sum() >= max(capacity, 1.0)  # and is busy with those from the cut on
    assert adaptive_cut(waiting, capacity=capacity + 1) <= cut
    assert adaptive_cut(waiting, capacity=capacity, before=before) >= cut


def test_freshness_is_weighted_by_what_the_users_are_worth() -> None:
    values, users, stale = np.ones(GROUPS), np.ones(GROUPS, np.int64), np.zeros(GROUPS, np.int64)
    values[24], stale[24] = 6.0, 1
    assert freshness(values, users=users, stale=stale) == 1 - 6 / 30
    assert freshness(values, users=np.zeros(GROUPS, np.int64), stale=stale) == 1.0
    assert freshness(values, users=users, stale=users * 3) == 0.0
