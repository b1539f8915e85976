"""Which ads are for the test, which for validation, and what is left for training.

Leave-one-out, LEADRE §5.1.1: each user's last ad is for the test, the last but one for validation. Global time (ours):
one instant cuts all histories, so nothing learned is younger than a test ad, as in production; a user's first ad after
the cut is for the test, the last before it for validation. Data with day resolution has users whose two held-out ads
happened at one instant; their order then is the file's, not the user's, and can leak. Such users are marked, so that
figures without them, or with the two ads swapped at random, can be reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

SplitKind = Literal["leave_one_out", "global_time"]
Scalar = TypeVar("Scalar", bound=np.generic)

HELD_OUT_FROM = 3
"""Users with fewer ad behaviors are trained on and not evaluated: test, validation, and one to learn from (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who is evaluated on what; positions are those of the flat arrays.

    Args:
        users: int64[n], numbers of the evaluated users.
        test: int64[n], position of each one's test ad.
        validation: int64[n], position of the ad before it.
        tied: bool[n], whether the two have one time.
        learn_until: int64[U], for every user the first position that training must not see.
    """

    users: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64]
    tied: NDArray[np.bool_]
    learn_until: NDArray[np.int64]

    def take(self, chosen: NDArray[np.int64]) -> Split:
        """Return the split of some of the evaluated users."""
        return Split(
            users=self.users[chosen],
            test=self.test[chosen],
            validation=self.validation[chosen],
            tied=self.tied[chosen],
            learn_until=self.learn_until,
        )


def hold_out(
    kind: SplitKind,
    offsets: NDArray[np.int64],
    is_ad: NDArray[np.bool_],
    occurred_at_s: NDArray[np.float64],
    *,
    test_share: float,
) -> Split:
    """Split as a recipe says; see `leave_one_out` and `global_time`."""
    if kind == "global_time":
        return global_time(offsets, is_ad, occurred_at_s, test_share=test_share)
    return leave_one_out(offsets, is_ad, occurred_at_s)


def leave_one_out(offsets: NDArray[np.int64], is_ad: NDArray[np.bool_], occurred_at_s: NDArray[np.float64]) -> Split:
    """Split positive behaviors in time order.

    Args:
        offsets: int64[U + 1], user u owns positions offsets[u] to offsets[u + 1].
        is_ad: bool[B], ad domain or content domain.
        occurred_at_s: float64[B], Unix seconds.
    """
    ads = np.flatnonzero(is_ad)
    ends = np.searchsorted(ads, offsets)  # of each user's ads, among the ads
    users = np.flatnonzero(np.diff(ends) >= HELD_OUT_FROM)
    last = ends[users + 1] - 1
    test, validation = ads[last], ads[last - 1]
    learn_until = offsets[1:].copy()
    learn_until[users] = validation
    return Split(
        users=users,
        test=test,
        validation=validation,
        tied=occurred_at_s[test] == occurred_at_s[validation],
        learn_until=learn_until,
    )


def global_time(
    offsets: NDArray[np.int64], is_ad: NDArray[np.bool_], occurred_at_s: NDArray[np.float64], *, test_share: float
) -> Split:
    """Split positive behaviors in time order at the start of the last `test_share` of the time that ads span.

    Users with two ads before the cut and one at or after it are evaluated. Training sees nothing at or after the cut,
    nor these users' last ad before it. A test ad's prompt holds what the user did before it.

    Args:
        offsets: int64[U + 1], as for `leave_one_out`.
        is_ad: bool[B].
        occurred_at_s: float64[B], Unix seconds.
        test_share: of the time from the first ad to the last, within (0, 1).
    """
    ads = np.flatnonzero(is_ad)
    times = occurred_at_s[ads]
    cut = times.max() - test_share * (times.max() - times.min()) if len(ads) else 0.0
    late = np.append(0, np.cumsum(times >= cut))
    bounds = np.searchsorted(ads, offsets)
    first_late = bounds[1:] - (late[bounds[1:]] - late[bounds[:-1]])  # among the ads; histories are in time order
    users = np.flatnonzero((first_late - bounds[:-1] >= HELD_OUT_FROM - 1) & (first_late < bounds[1:]))
    test, validation = ads[first_late[users]], ads[first_late[users] - 1]
    after = np.append(0, np.cumsum(occurred_at_s >= cut))
    learn_until = offsets[1:] - (after[offsets[1:]] - after[offsets[:-1]])
    learn_until[users] = validation
    return Split(
        users=users,
        test=test,
        validation=validation,
        tied=np.zeros(len(users), np.bool_),  # the cut is between the two
        learn_until=learn_until,
    )


def swapped(split: Split, *, seed: int) -> NDArray[np.bool_]:
    """Draw, for each evaluated user, whether the held-out ads change places: half of the tied users, bool[n].

    Both were held out from training, so nothing that was learned becomes a target.
    """
    return split.tied & (np.random.default_rng(seed).random(len(split.users)) < 0.5)


def swap(values: NDArray[Scalar], split: Split, chosen: NDArray[np.bool_]) -> NDArray[Scalar]:
    """Return a copy of a flat array [B] in which test and validation of the chosen users (bool[n]) are exchanged."""
    test, validation = split.test[chosen], split.validation[chosen]
    exchanged = values.copy()
    exchanged[test], exchanged[validation] = values[validation], values[test]
    return exchanged
