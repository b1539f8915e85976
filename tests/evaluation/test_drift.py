"""The population stability index: its arithmetic by hand, its bins, and what holds for any values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from leadre.evaluation.drift import bin_shares, drift, quantile_edges, stability_index

# Ties, constants, extremes and holes are as likely as anything else.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0, math.nan, math.inf, -math.inf]), st.floats(allow_nan=True), st.integers(-3, 3)
)
VALUES = st.lists(NUMBERS, max_size=60).map(lambda values: np.array(values, dtype=np.float64))
SHARES = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(*[st.lists(st.integers(0, 50), min_size=bins, max_size=bins)] * 2)
)


def test_the_index_of_two_bins_by_hand() -> None:
    """.5/.5 against .6/.4: (.5 - .6) ln(.5 / .6) + (.5 - .4) ln(.5 / .4) = .1 x .18232 + .1 x .22314 = .04055."""
    assert stability_index(np.array([0.5, 0.5]), np.array([0.6, 0.4])) == pytest.approx(0.0405465, abs=1e-6)
    reference, values = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [60, 40])
    assert drift(reference, values) == pytest.approx(0.0405465, abs=1e-6)


def test_an_empty_bin_counts_as_one_in_ten_thousand() -> None:
    """1/0 against 0/1: twice (1 - .0001) ln(10,000) = 18.4188."""
    assert stability_index(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(18.4188, abs=1e-3)


def test_continuous_values_fall_into_ten_bins_of_one_size_and_a_shift_of_one_deviation_is_much() -> None:
    reference = np.random.default_rng(3).normal(size=20_000)
    edges = quantile_edges(reference)
    assert len(edges) == 9
    assert_allclose(bin_shares(reference, edges), 0.1, atol=1e-3)
    assert drift(reference, np.random.default_rng(4).normal(size=20_000)) < 0.01
    # Two normals one deviation apart: the PSI of the densities is 1, of ten bins a little less.
    assert drift(reference, reference + 1) == pytest.approx(0.93, abs=0.08)


def test_a_value_that_many_rows_share_has_a_bin_of_its_own() -> None:
    reference = np.concatenate((np.zeros(90), np.linspace(0.1, 1, 10)))
    edges = quantile_edges(reference)
    assert_allclose(bin_shares(reference, edges), [0, 0.9, 0.1])
    assert drift(reference, np.where(reference == 0, 1e-300, reference)) > 5  # no longer exactly neutral


@pytest.mark.parametrize("moved", [6.0, 8.0])
def test_a_constant_that_changes_is_drift_and_one_that_stays_is_none(moved: float) -> None:
    constant = np.full(100, 7.0)
    assert drift(constant, np.full(40, 7.0)) == 0
    assert drift(constant, np.full(40, moved)) > 9


def test_without_values_there_is_no_index() -> None:
    nothing, something = np.array([math.nan]), np.array([1.0])
    assert math.isnan(drift(nothing, something))
    assert math.isnan(drift(something, nothing))
    assert len(quantile_edges(nothing)) == 0
    assert bin_shares(nothing, np.array([1.0])).tolist() == [0, 0]


@given(VALUES, st.integers(2, 12))
def test_edges_rise_and_every_finite_value_is_in_one_bin(values: NDArray[np.float64], bins: int) -> None:
    edges = quantile_edges(values, bins=bins)
    assert len(edges) <= bins
    assert np.all(np.diff(edges) > 0)
    shares = bin_shares(values, edges)
    assert shares.sum() == pytest.approx(float(np.isfinite(values).any()))
    assert len(shares) == len(edges) + 1


@given(VALUES)
def test_equal_samples_do_not_drift(values: NDArray[np.float64]) -> None:
    index = drift(values, values[::-1])
    assert index == 0 or (math.isnan(index) and not np.isfinite(values).any())


@given(VALUES, VALUES)
def test_the_index_is_never_negative(reference: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    index = drift(reference, values)
    assert index >= 0 or math.isnan(index)


@given(SHARES)
def test_the_index_of_shares_is_symmetric(counts: tuple[list[int], list[int]]) -> None:
    p, q = (np.array(some) / max(sum(some), 1) for some in counts)
    assert stability_index(p, q) == stability_index(q, p) >= 0
    assert stability_index(p, p) == 0
