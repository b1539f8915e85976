import numpy as np
import pytest

from leadre.evaluation.bootstrap import independent_differences, intervals, paired_differences, pooled_intervals


def test_the_interval_of_a_share_is_the_binomial_one():
    users = 900
    values = (np.arange(users) % 10 == 0).astype(float)[:, None]
    (found,) = intervals(values, seed=3)
    half = 1.96 * np.sqrt(0.1 * 0.9 / users)
    assert found.mean == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - half, abs=0.004)
    assert found.high == pytest.approx(0.1 + half, abs=0.004)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random((70, 2))
    assert intervals(values, seed=1) == intervals(values, seed=1)
    assert intervals(values, seed=1) != intervals(values, seed=2)


def test_pairing_sees_a_difference_that_the_single_intervals_hide():
    rng = np.random.default_rng(1)
    theirs = rng.normal(0, 5, (400, 1))
    ours = theirs + 0.1 + rng.normal(0, 0.1, (400, 1))
    (difference,) = paired_differences(ours, theirs, seed=0)
    assert 0 < difference.low < 0.1 < difference.high < 0.15
    assert intervals(ours, seed=0)[0].low < intervals(theirs, seed=0)[0].high


def test_no_users_give_zeros():
    assert [found.to_json() for found in intervals(np.empty((0, 2)), seed=0)] == [{"mean": 0, "low": 0, "high": 0}] * 2


def test_one_training_has_the_interval_of_its_users():
    values = np.random.default_rng(2).random((1, 600, 2))
    for pooled, alone in zip(pooled_intervals(values, seed=0), intervals(values[0], seed=1), strict=True):
        assert pooled.mean == pytest.approx(alone.mean)
        assert (pooled.low, pooled.high) == pytest.approx((alone.low, alone.high), abs=0.005)


def test_trainings_that_differ_widen_the_interval_by_their_spread():
    rng = np.random.default_rng(3)
    users = rng.normal(0, 1, (1, 2000, 1))
    shifts = np.array([-0.3, 0.05, 0.25])
    (found,) = pooled_intervals(users + shifts[:, None, None], seed=0)
    (alike,) = pooled_intervals(np.repeat(users, 3, axis=0), seed=0)
    assert found.mean == pytest.approx(alike.mean)
    error = np.sqrt(shifts.var(ddof=1) / 3 + 1 / 2000)
    assert 1.4 * error < (found.high - found.low) / 2 < 2.2 * error  # 1.96 with many seeds
    assert alike.high - alike.low < 0.11


def test_users_without_a_figure_are_left_out():
    values = np.full((2, 50, 2), np.nan)
    values[:, ::2, 0] = 3.0
    values[:, 1::2, 1] = np.arange(25)
    first, second = pooled_intervals(values, seed=0)
    assert (first.mean, first.low, first.high) == pytest.approx((3, 3, 3))
    assert second.mean == pytest.approx(12)
    assert second.low < 12 < second.high


def test_pooling_no_users_gives_zeros():
    assert [found.mean for found in pooled_intervals(np.empty((3, 0, 2)), seed=0)] == [0, 0]


def test_independent_differences_have_the_errors_of_both_groups():
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(0.5, 1, (900, 1)), rng.normal(0, 2, (700, 1))
    (found,) = independent_differences(ours, theirs, seed=0)
    error = np.sqrt(1 / 900 + 4 / 700)
    assert found.mean == pytest.approx(ours.mean() - theirs.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.12)


def test_independent_differences_leave_out_users_without_a_figure():
    ours, theirs = np.array([[1.0, np.nan], [3.0, 5.0]]), np.array([[np.nan, 1.0], [1.0, 1.0], [1.0, np.nan]])
    first, second = independent_differences(ours, theirs, seed=0)
    assert (first.mean, second.mean) == (1, 4)
