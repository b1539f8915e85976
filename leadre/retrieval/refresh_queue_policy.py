"""Whom the refresh queue serves first, and how many: values of the ARPU groups, cut, floor, budget.

LEADRE §4.4.1, Adaptive Resource Distribution. Kept in Redis, so that all workers follow the same; what is set counts
from the next claim on, and no waiting user has to be moved for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from redis import Redis

from leadre.errors import InvalidInput
from leadre.retrieval.priority import GROUPS
from leadre.retrieval.refresh_queue_keys import BUDGET, VALUES, reachable


class QueuePolicy:
    """The settings that the queue's scripts read. `RefreshQueue` is one."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def set_values(self, values: Sequence[float], discount: float = 0.8) -> None:
        """Set what a refresh is worth to each ARPU group; it counts from the next claim on.

        Args:
            values: 25 numbers, in any unit, none below the one before. Until set, a group's number plus one (ours).
            discount: share of a user's value that one unseen request leaves unclaimed, in (0, 1) (ours: .8).

        Raises:
            InvalidInput: another number of values, one that is negative, not finite or below that of a lower group; a
                discount out of bounds.
        """
        numbers = [float(value) for value in values]
        if len(numbers) != GROUPS:
            raise InvalidInput(f"{len(numbers)} values; give {GROUPS}, one for each ARPU group", column="values")
        if not all(math.isfinite(value) for value in numbers) or numbers[0] < 0 or numbers != sorted(numbers):
            raise InvalidInput("values must be finite, 0 or more, and rise with the group", column="values")
        if not 0 < discount < 1:
            raise InvalidInput(f"the discount is {discount}; it must be between 0 and 1", column="discount")
        self._set(VALUES, {"values": json.dumps(numbers), "discount": repr(float(discount))})

    def set_cut(self, group: int) -> None:
        """Set the lowest ARPU group that the LLM serves first; those below are the cheap lane's (0, the default: none).

        Raises:
            InvalidInput: not 0 to 25.
        """
        if not 0 <= group <= GROUPS:
            raise InvalidInput(f"the cut is {group}; it must be 0 to {GROUPS}", column="cut")
        self._set(VALUES, {"cut": int(group)})

    def set_floor(self, share: float) -> None:
        """Set the share of LLM claims that goes to the longest waiting users, whatever their value (ours: .1).

        Raises:
            InvalidInput: not 0 to 1.
        """
        if not 0 <= share <= 1:
            raise InvalidInput(f"the floor's share is {share}; it must be 0 to 1", column="floor")
        self._set(VALUES, {"floor": round(share * 1000)})

    def set_budget(self, users_per_s: float, burst: float) -> None:
        """Set how many users all workers together may claim for the LLM: a token bucket by Redis's clock.

        In any stretch of t seconds at most `burst + users_per_s * t` users are claimed. Setting it
        again refills nothing.

        Args:
            users_per_s: 0 for no bound (the default).
            burst: most users at once after a rest; not smaller than a worker's batch, or no batch is ever full.

        Raises:
            InvalidInput: a negative or infinite rate, or a burst below 1.
        """
        if not 0 <= users_per_s < math.inf:
            raise InvalidInput(f"the budget is {users_per_s} users/s; it must be 0 or more", column="users_per_s")
        if users_per_s and not 1 <= burst < math.inf:
            raise InvalidInput(f"the budget's burst is {burst} users; it must be at least 1", column="burst")
        self._set(BUDGET, {"users_per_s": repr(float(users_per_s)), "burst": repr(float(burst))})

    def _set(self, key: str, fields: Mapping[str, int | str]) -> None:
        with reachable():
            self._redis.hset(key, mapping=dict(fields))
