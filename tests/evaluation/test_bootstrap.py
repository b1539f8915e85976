import numpy as np
import pytest

from leadre.evaluation.bootstrap import intervals, paired_differences


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
