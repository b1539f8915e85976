"""AUC, GAUC and log-loss, and their differences with intervals by bootstrap over users. LEADRE §5.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def auc(scores: Array, labels: Array, weights: Array | None = None) -> float:
    """Return the probability that a positive has a higher score than a negative; ties count half."""
    return _Ranked(scores, labels).auc(np.ones(len(scores)) if weights is None else weights)


def log_loss(scores: Array, labels: Array) -> float:
    """Return the mean of -ln p of what happened."""
    return float(_losses(scores, labels).mean())


def gauc(scores: Array, labels: Array, users: NDArray[np.int64]) -> float:
    """Return the mean of users' own AUCs, each by its rows; users without both labels have none."""
    values, rows = _by_user(scores, labels, users)
    return float((values * rows).sum() / max(1.0, rows.sum()))


def compare(ours: Array, theirs: Array, labels: Array, users: NDArray[np.int64], *, seed: int) -> dict[str, Figure]:
    """Return ours less theirs: `auc`, `gauc` and `log_loss`, with intervals.

    Users are drawn with replacement, each with all rows, the same draws for both sides.

    Args:
        ours: scores, [R].
        theirs: [R].
        labels: 0 or 1, [R].
        users: [R].
        seed: of the draws.
    """
    number, count = np.unique(users, return_inverse=True)[1], len(np.unique(users))
    ranked = [_Ranked(scores, labels) for scores in (ours, theirs)]
    grouped = [_by_user(scores, labels, users) for scores in (ours, theirs)]
    loss = np.bincount(number, _losses(ours, labels) - _losses(theirs, labels), count)
    rows = np.bincount(number, minlength=count).astype(np.float64)

    def differences(times: Array) -> tuple[float, float, float]:
        weights = times[number]
        first, second = (of.auc(weights) for of in ranked)
        shares = [(values * kept * times).sum() / max(1.0, (kept * times).sum()) for values, kept in grouped]
        return first - second, shares[0] - shares[1], float((loss * times).sum() / (rows * times).sum())

    rng = np.random.default_rng(seed)
    drawn = np.array(
        [differences(rng.multinomial(count, np.full(count, 1 / count)).astype(float)) for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    values = differences(np.ones(count))
    return {
        name: Figure(value=float(value), low=float(a), high=float(b))
        for name, value, a, b in zip(("auc", "gauc", "log_loss"), values, low, high, strict=True)
    }


class _Ranked:
    """Rows sorted once, so that the AUC of any weights is a few sums."""

    def __init__(self, scores: Array, labels: Array) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # rows of one score tie
        self._positive = labels[self._order] > 0

    def auc(self, weights: Array) -> float:
        ordered = weights[self._order]
        positive = np.add.reduceat(np.where(self._positive, ordered, 0.0), self._starts)
        negative = np.add.reduceat(np.where(self._positive, 0.0, ordered), self._starts)
        below = np.cumsum(negative) - negative / 2
        pairs = positive.sum() * negative.sum()
        return float((positive * below).sum() / pairs) if pairs > 0 else 0.5


def _by_user(scores: Array, labels: Array, users: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return each user's AUC and its rows; 0 rows where it has not both labels. In the order of ids."""
    order = np.argsort(users, kind="stable")
    bounds = np.flatnonzero(np.r_[True, np.diff(users[order]) != 0])
    values, rows = np.zeros(len(bounds)), np.zeros(len(bounds))
    for place, of_user in enumerate(np.split(order, bounds[1:])):
        if 0 < labels[of_user].sum() < len(of_user):
            values[place], rows[place] = auc(scores[of_user], labels[of_user]), len(of_user)
    return values, rows


def _losses(scores: Array, labels: Array) -> Array:
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return -np.where(labels > 0, np.log(clipped), np.log1p(-clipped))
