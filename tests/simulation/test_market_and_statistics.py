"""The auction and the lifts, against answers known by hand and by theory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.simulation.market import log_spread, run_auctions
from leadre.simulation.measure.statistics import cuped, paired_lift, randomised_lift
from leadre.simulation.parameters import SWEPT, Parameters
from leadre.store.importers.prices import MarketPrices


def test_the_best_candidate_wins_and_pays_the_second_price() -> None:
    winners, paid = run_auctions(np.array([[30.0, 50.0, 10.0]]), np.array([[20.0, 5.0]]))
    assert winners.tolist() == [[1, 0]]
    # the first slot: the next candidate's 30 is above the market's 20; the second: 10 is above 5
    assert paid.tolist() == [[0.03, 0.01]]


def test_a_slot_that_the_market_wins_leaves_the_candidates() -> None:
    winners, paid = run_auctions(np.array([[30.0, -np.inf]]), np.array([[40.0, 20.0, 1.0]]))
    assert winners.tolist() == [[-1, 0, -1]]
    assert paid.tolist() == [[0.0, 0.02, 0.0]]


@given(st.integers(0, 2**32 - 1))
def test_nobody_pays_more_than_the_ad_was_worth_and_no_ad_wins_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ecpm, market = rng.lognormal(3, 1, (7, 5)), rng.lognormal(3, 1, (7, 4))
    winners, paid = run_auctions(ecpm, market)
    for row in range(7):
        won = winners[row][winners[row] >= 0]
        assert len(set(won.tolist())) == len(won)
    worth = np.take_along_axis(ecpm, np.maximum(winners, 0), axis=1) / 1000
    assert (paid <= np.where(winners >= 0, worth, 0.0) + 1e-12).all()
    assert (paid[winners >= 0] >= market[winners >= 0] / 1000).all()


def test_the_spread_of_prices_is_that_of_their_logarithms() -> None:
    prices = MarketPrices(bids=np.exp([1.0, 3.0]), counts=np.array([5, 5]))
    assert log_spread(prices) == pytest.approx(1.0)


def test_a_lift_of_a_tenth_in_every_user_is_known_without_doubt() -> None:
    theirs = [np.random.default_rng(seed).lognormal(0, 1, 50) for seed in range(5)]
    lift = paired_lift([1.1 * values for values in theirs], theirs, seed=0)
    assert lift.mean == pytest.approx(0.1)
    assert (lift.low, lift.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_intervals_of_a_lift_that_is_not_there_hold_zero_about_19_times_in_20() -> None:
    rng, held = np.random.default_rng(5), 0
    for trial in range(100):
        ours, theirs = ([rng.exponential(1.0, 80) for _ in range(5)] for _ in range(2))
        lift = paired_lift(ours, theirs, seed=trial)
        held += lift.low <= 0 <= lift.high
    assert held >= 88  # of 100 at 95 %; 87 or fewer has a chance below 1 in 500


def test_two_groups_of_the_same_system_differ_by_nothing_on_average() -> None:
    rng = np.random.default_rng(2)
    lifts = []
    for trial in range(100):
        before = rng.exponential(1.0, 200)
        values = before + rng.exponential(1.0, 200)
        group = rng.permutation(200) < 100
        lifts.append(randomised_lift([(values, values)], [before], [group], seed=trial).mean)
    assert abs(np.mean(lifts)) < 3 * np.std(lifts) / np.sqrt(len(lifts))


def test_cuped_takes_out_what_the_past_explains_and_leaves_the_mean() -> None:
    rng = np.random.default_rng(1)
    before, group = rng.exponential(1.0, 2000), np.arange(2000) % 2 == 0
    values = 3 * before + rng.normal(0, 0.1, 2000) + 0.5 * group
    adjusted = cuped(values, before, group)
    assert adjusted.mean() == pytest.approx(values.mean())
    assert adjusted[group].mean() - adjusted[~group].mean() == pytest.approx(0.5, abs=0.02)
    assert adjusted.var() < 0.1 * values.var()


def test_without_a_past_cuped_changes_nothing() -> None:
    values = np.arange(6.0)
    assert cuped(values, np.zeros(6), np.arange(6) < 3).tolist() == values.tolist()


@pytest.mark.parametrize("wrong", [{"cold": 1.0}, {"churn": 0.5}, {"visits": 99}, {"users": 0}, {"competition": 0.0}])
def test_parameters_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Parameters(**wrong)  # type: ignore[arg-type]


def test_every_swept_value_is_allowed_and_none_is_the_default() -> None:
    for name, values in SWEPT.items():
        for value in values:
            assert getattr(Parameters(**{name: value}), name) == value != getattr(Parameters(), name)  # type: ignore[arg-type]
