"""Lifts with intervals: paired over users and worlds, and the two-group A/B test with CUPED beside it. Ours.

Paired: every user is simulated in both arms with the same dice, which no real experiment can do. Randomised: users are
split into two groups, as a real experiment does; CUPED takes out what the users' past explains of their value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.bootstrap import LEVEL, RESAMPLES, Interval

Floats = NDArray[np.float64]


def paired_lift(ours: Sequence[Floats], theirs: Sequence[Floats], *, seed: int) -> Interval:
    """Return how much larger our total is, as a share of theirs, with its 95 % interval over worlds and users.

    Every draw takes some of the worlds, and some users of each, with both of their figures. Few worlds spread too
    little when they are drawn again, so their weights are spread as in `leadre.evaluation.bootstrap.pooled_intervals`.

    Args:
        ours: of each world, float64[users].
        theirs: the same users in the other arm.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, len(ours), 2))
    for world, pair in enumerate(zip(ours, theirs, strict=True)):
        users = len(pair[0])
        times = rng.multinomial(users, np.full(users, 1 / users), RESAMPLES).astype(np.float64)
        drawn[:, world] = times @ np.stack(pair, axis=1) / users
    means = np.array([[a.mean(), b.mean()] for a, b in zip(ours, theirs, strict=True)])
    return _over_worlds(means, drawn, rng)


def randomised_lift(
    values: Sequence[tuple[Floats, Floats]], before: Sequence[Floats], groups: Sequence[NDArray[np.bool_]], *, seed: int
) -> Interval:
    """Return the lift that a two-group experiment with CUPED would report, with its 95 % interval.

    Args:
        values: of each world, every user's figure in the treatment and in the control arm; only the one of the user's
            own group is used.
        before: of each world, every user's figure before the experiment, float64[users].
        groups: of each world, who is in the treatment group, bool[users].
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    drawn, means = np.empty((RESAMPLES, len(values), 2)), np.empty((len(values), 2))
    for world, ((treated, control), past, group) in enumerate(zip(values, before, groups, strict=True)):
        adjusted = cuped(np.where(group, treated, control), past, group)
        for side, chosen in enumerate((adjusted[group], adjusted[~group])):
            times = rng.multinomial(len(chosen), np.full(len(chosen), 1 / len(chosen)), RESAMPLES)
            drawn[:, world, side] = times @ chosen / len(chosen)
            means[world, side] = chosen.mean()
    return _over_worlds(means, drawn, rng)


def cuped(values: Floats, before: Floats, group: NDArray[np.bool_]) -> Floats:
    """Return values less what the figure before explains of them; means of both groups stay unbiased.

    The slope is that within the groups, so that a difference between them is not taken for one. Deng et al., WSDM 2013.
    """
    centred_value, centred = values.copy(), before - before.mean()
    within = before.copy()
    for side in (group, ~group):
        if side.any():
            centred_value[side] -= values[side].mean()
            within[side] -= before[side].mean()
    spread = float(within @ within)
    slope = float(within @ centred_value) / spread if spread > 0 else 0.0
    adjusted: Floats = values - slope * centred
    return adjusted


def _over_worlds(means: Floats, drawn: Floats, rng: np.random.Generator) -> Interval:
    """Return the lift of [worlds, 2] means, with the interval of [draws, worlds, 2] means."""
    worlds = len(means)
    weights = rng.multinomial(worlds, np.full(worlds, 1 / worlds), len(drawn)) / worlds
    spread = np.sqrt(worlds / (worlds - 1)) if worlds > 1 else 1.0
    weights = 1 / worlds + (weights - 1 / worlds) * spread
    totals = np.einsum("rw,rws->rs", weights, drawn)
    low, high = np.quantile(_lift(totals), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean=float(_lift(means.sum(axis=0))), low=float(low), high=float(high))


def _lift(totals: Floats) -> Floats:
    theirs = totals[..., 1]
    found: Floats = np.where(theirs > 0, totals[..., 0] / np.where(theirs > 0, theirs, 1.0) - 1.0, 0.0)
    return found
