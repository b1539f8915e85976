"""Percentile intervals over users and trainings, of means and of paired differences (ours; the paper prints points)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1_000
LEVEL = 0.95
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over users and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the plain form."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def intervals(values: NDArray[np.float64], *, seed: int) -> list[Interval]:
    """Return the mean of each column with its 95 % percentile interval.

    Users are drawn with replacement, the same draws for all columns.

    Args:
        values: float64[n, m], one row a user, one column a metric.
        seed: of the draws.
    """
    users, metrics = values.shape
    if users == 0:
        return [Interval(mean=0.0, low=0.0, high=0.0)] * metrics
    rng = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, metrics))
    step = max(1, _DRAWS_AT_ONCE // users)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = rng.integers(0, users, (rows, users)) + np.arange(rows)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        means[start : start + rows] = times @ values / users
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        Interval(mean=float(mean), low=float(a), high=float(b))
        for mean, a, b in zip(values.mean(axis=0), low, high, strict=True)
    ]


def paired_differences(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int) -> list[Interval]:
    """Return the mean of ours - theirs by column, both over the same users (float64[n, m]), with its interval."""
    return intervals(ours - theirs, seed=seed)


def pooled_intervals(values: NDArray[np.float64], *, seed: int) -> list[Interval]:
    """Return the mean of each column over users and seeds with its 95 % percentile interval.

    Users and seeds are crossed, and both are drawn with replacement: every draw takes some of the users, each with all
    its figures, and some of the trainings, each with all its users. So an interval holds both kinds of noise, that of
    who was asked and that of how the training came out. Few seeds spread too little when they are drawn again, by
    (n - 1) / n of the variance, so their weights are spread by the root of the inverse. With one seed, an interval
    knows nothing of the noise of training.

    Args:
        values: float64[seeds, users, metrics]; NaN where a user has no such figure, which is then left out. Give
            differences for a paired interval.
        seed: of the draws.
    """
    seeds, users, metrics = values.shape
    if users == 0 or seeds == 0:
        return [Interval(mean=0.0, low=0.0, high=0.0)] * metrics
    rng = np.random.default_rng(seed)
    there = ~np.isnan(values)
    flat = np.where(there, values, 0.0).transpose(1, 0, 2).reshape(users, -1)
    present = there.transpose(1, 0, 2).reshape(users, -1).astype(np.float64)
    means = np.empty((RESAMPLES, metrics))
    step = max(1, _DRAWS_AT_ONCE // users)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        times = rng.multinomial(users, np.full(users, 1 / users), rows).astype(np.float64)
        by_seed = (times @ flat / np.maximum(times @ present, 1.0)).reshape(rows, seeds, metrics)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), rows) / seeds
        spread = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0
        weights = 1 / seeds + (weights - 1 / seeds) * spread
        means[start : start + rows] = np.einsum("rs,rsm->rm", weights, by_seed)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    mean = (flat.sum(axis=0) / np.maximum(present.sum(axis=0), 1.0)).reshape(seeds, metrics).mean(axis=0)
    return [Interval(mean=float(a), low=float(b), high=float(c)) for a, b, c in zip(mean, low, high, strict=True)]


def independent_differences(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int) -> list[Interval]:
    """Return the mean of ours less that of theirs by column, of different users, with its 95 % percentile interval.

    Args:
        ours: float64[n, m]; NaN where a user has no such figure, which is then left out.
        theirs: float64[k, m].
        seed: of the draws.
    """
    means, drawn = [], []
    for side, values in enumerate((ours, theirs)):
        there = ~np.isnan(values)
        flat = np.where(there, values, 0.0)
        users = max(1, len(values))
        times = np.random.default_rng((seed, side)).multinomial(len(values), np.full(users, 1 / users), RESAMPLES)
        drawn.append(times[:, : len(values)] @ flat / np.maximum(times[:, : len(values)] @ there, 1))
        means.append(flat.sum(axis=0) / np.maximum(there.sum(axis=0), 1))
    low, high = np.quantile(drawn[0] - drawn[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [
        Interval(mean=float(mean), low=float(a), high=float(b))
        for mean, a, b in zip(means[0] - means[1], low, high, strict=True)
    ]


def shares_of_rows(
    hits: NDArray[np.float64], rows: NDArray[np.float64], *, seed: int
) -> tuple[Interval, Interval, Interval]:
    """Return the share of hits among the rows of two kinds, and how much larger the second is, each with its interval.

    Users (or groups of them) are drawn with replacement, with all their rows.

    Args:
        hits: float64[n, 2], of each user's rows of either kind.
        rows: float64[n, 2], how many there are.
        seed: of the draws.
    """
    some = rows.sum(axis=1) > 0
    values = np.concatenate([hits[some], rows[some]], axis=1)
    users = max(1, len(values))
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, 4))
    step = max(1, _DRAWS_AT_ONCE // users)
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        times = rng.multinomial(len(values), np.full(users, 1 / users), count)[:, : len(values)]
        drawn[start : start + count] = times @ values

    def shares(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        both = sums[..., :2] / np.maximum(sums[..., 2:], 1.0)
        return np.concatenate([both, both[..., 1:] - both[..., :1]], axis=-1)

    low, high = np.quantile(shares(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    first, second, difference = (
        Interval(mean=float(mean), low=float(a), high=float(b))
        for mean, a, b in zip(shares(values.sum(axis=0)), low, high, strict=True)
    )
    return first, second, difference
