"""Adaptive Resource Distribution: what a refresh of each ARPU group is worth, and which groups the LLM serves now.

LEADRE §4.4.1. The paper gives 25 groups and "prioritizing GPU inference for high-value users"; the formulas are ours.
Arrays of 25 are by group, the lowest ARPU first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.retrieval.priority import GROUPS

Floats = NDArray[np.float64]

LEAST = 0.01
"""A group is worth at least this share of the mean user (ours): who has earned nothing yet may still do so."""


def group_values(means: Floats, users: NDArray[np.int64], *, before: Floats | None = None, smoothing: float) -> Floats:
    """Return what a user of each group is worth: its mean ARPU, smoothed over the days, never less than a lower group.

    Args:
        means: float64[25], mean ARPU; of an empty group it does not matter.
        users: int64[25], how many users each group has.
        before: float64[25], the values of the day before; None on the first day.
        smoothing: weight of today, above 0 and at most 1.

    Returns:
        float64[25], ascending, above 0; an empty group takes the value of the next lower one. All 1 while nobody earns.

    Raises:
        InvalidInput: a shape other than [25], or a smoothing out of bounds.
    """
    if means.shape != (GROUPS,) or users.shape != (GROUPS,):
        raise InvalidInput(f"there are {GROUPS} ARPU groups, means and users are {means.shape} and {users.shape}")
    if not 0 < smoothing <= 1:
        raise InvalidInput(f"smoothing is {smoothing}: it is above 0 and at most 1, the weight of today's mean")
    weights = np.maximum(users, 0).astype(np.float64)
    today = np.where(weights > 0, means, 0.0)
    mean = float(today @ weights / weights.sum()) if weights.any() else 0.0
    if mean <= 0:
        return np.ones(GROUPS)
    if before is not None:
        today = np.where(weights > 0, smoothing * today + (1 - smoothing) * before, 0.0)
    return np.maximum(_ascending(today, weights), LEAST * mean)


def claim_index(values: Floats, unseen: NDArray[np.int64], *, discount: float) -> Floats:
    """Return how much a refresh of users brings: value x (1 - d^unseen), the order of claims.

    A list that misses n behaviors is worth d^n of a fresh one, so this is what refreshing it wins back.

    Args:
        values: [n], of the users' groups.
        unseen: int64[n], positive behaviors that their newest lists do not know.
        discount: d, between 0 and 1.
    """
    index: Floats = values * (1.0 - discount**unseen)
    return index


def adaptive_cut(waiting: NDArray[np.int64], *, capacity: float, before: int = 0) -> int:
    """Return the lowest group that the LLM serves; the cheap lane serves those below it.

    The groups are filled from the top until their waiting users are as many as the LLM can serve; the group in which
    that happens is still the LLM's, so that none of its time is left idle. The cut rises at once and falls by one group
    a step: groups that the cheap lane has just emptied would otherwise seem to want nothing.

    Args:
        waiting: int64[25], users who wait.
        capacity: users the LLM can serve within the time they may wait; inf where there is no budget.
        before: the cut of the step before.

    Returns:
        0, where the LLM serves all, to 24.
    """
    above = np.cumsum(waiting[::-1])[::-1] - waiting  # users in higher groups
    wanted = int(np.flatnonzero(above < max(capacity, 1.0))[0])
    return max(wanted, before - 1)


def freshness(values: Floats, *, users: NDArray[np.int64], stale: NDArray[np.int64]) -> float:
    """Return the share of the users' worth whose lists know all of their behaviors; 1 without any user.

    Args:
        values: float64[25].
        users: int64[25], how many users each group has.
        stale: int64[25], how many of them have behaviors that their list does not know.
    """
    worth = float(values @ users)
    return 1.0 - min(float(values @ stale) / worth, 1.0) if worth else 1.0


def _ascending(values: Floats, weights: Floats) -> Floats:
    """Return the ascending values nearest to `values` (weighted least squares, by pooling adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # value, weight, how many groups
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        if weight == 0:  # an empty group goes with the one below
            value = pools[-1][0] if pools else 0.0
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, low_weight, low_count), (high, high_weight, high_count) = pools[-2:]
            total = low_weight + high_weight
            pools[-2:] = [((low * low_weight + high * high_weight) / total, total, low_count + high_count)]
    return np.repeat([value for value, _, _ in pools], [count for _, _, count in pools])
