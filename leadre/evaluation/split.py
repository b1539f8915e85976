"""Leave-one-out: each user's last ad is for the test, the last but one for validation, the rest for training.

LEADRE §5.1.1. Data with day resolution has users whose two held-out ads happened at one instant; their order then is
the file's, not the user's, and can leak. Such users are marked, so that figures without them, or with the two ads
swapped at random, can be reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

HELD_OUT_FROM = 3
"""Users with fewer ad behaviors are trained on and not evaluated: test, validation, and one to learn from (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who is evaluated on what; positions are those of the flat arrays.

    Args:
        users: int64[n], numbers of the evaluated users.
        test: int64[n], position of each one's last ad.
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
