"""Percentile intervals over users, of means and of paired differences (ours; the paper prints points alone)."""

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
