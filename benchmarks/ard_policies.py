"""Orders in which stale users may be refreshed when not all can be: ours, and what others do. LEADRE §4.4.1.

Each is a queue of numbered users: `mark` says that a user has made a request (its n-th), `claim` gives the next ones to
refresh. A task is (user, n): the list made by it knows the user's first n behaviors.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.retrieval.distribution import claim_index

Task = tuple[int, int]


class Policy(Protocol):
    """A queue of stale users."""

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Take note of a user's `number`-th request."""
        ...

    def claim(self, limit: int, now_s: float) -> list[Task]:
        """Give at most `limit` tasks; no user is in two of them."""
        ...


class Fifo:
    """A Celery task a request, first come first served; with `expires_s` a late one is dropped. Its argument is what
    the request saw: a task knows no later behavior."""

    def __init__(self, groups: NDArray[np.int64], *, expires_s: float = np.inf, strict: bool = False) -> None:
        self._group = groups.tolist() if strict else [0] * len(groups)
        self._expires_s = expires_s
        self._queues: list[deque[tuple[int, int, float]]] = [deque() for _ in range(25 if strict else 1)]

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Append a message to the group's queue."""
        self._queues[self._group[user]].append((user, number, now_s))

    def claim(self, limit: int, now_s: float) -> list[Task]:
        """Give the oldest messages of the highest queue that has any."""
        tasks: list[Task] = []
        for queue in reversed(self._queues):
            while queue and len(tasks) < limit:
                user, number, at = queue.popleft()
                if now_s - at <= self._expires_s:
                    tasks.append((user, number))
        return tasks


class Coalesced:
    """One row a waiting user, read when it is claimed; strict by group, or by a share of the GPU for each group."""

    def __init__(self, groups: NDArray[np.int64], *, weights: NDArray[np.float64] | None = None) -> None:
        self._group, self._newest = groups.tolist(), [0] * len(groups)
        self._waiting = np.zeros(len(groups), np.bool_)
        self._queues: list[deque[int]] = [deque() for _ in range(25)]
        self._weights = None if weights is None else weights.tolist()
        self._finish, self._clock = [0.0] * 25, 0.0

    def mark(self, user: int, number: int, now_s: float) -> None:  # noqa: ARG002 - the protocol's
        """Append the user unless it waits."""
        self._newest[user] = number
        if not self._waiting[user]:
            self._waiting[user] = True
            queue = self._queues[self._group[user]]
            if not queue:
                self._finish[self._group[user]] = max(self._finish[self._group[user]], self._clock)
            queue.append(user)

    def claim(self, limit: int, now_s: float) -> list[Task]:  # noqa: ARG002 - the protocol's
        """Give users of the highest group, or of the group that has had the least of its share."""
        tasks: list[Task] = []
        while len(tasks) < limit:
            open_groups = [group for group in range(24, -1, -1) if self._queues[group]]
            if not open_groups:
                break
            group = open_groups[0]
            if self._weights is not None:
                group = min(open_groups, key=self._finish.__getitem__)
                self._clock = self._finish[group]
                self._finish[group] += 1.0 / self._weights[group]
            user = self._queues[group].popleft()
            self._waiting[user] = False
            tasks.append((user, self._newest[user]))
        return tasks


class EarliestDeadline:
    """One row a waiting user, due sooner the more its group is worth."""

    def __init__(self, groups: NDArray[np.int64], *, values: NDArray[np.float64], patience_s: float = 600.0) -> None:
        self._slack = (patience_s * values.mean() / values)[groups].tolist()
        self._newest, self._waits = [0] * len(groups), [False] * len(groups)
        self._due: list[tuple[float, int]] = []

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Set a deadline unless there is one."""
        self._newest[user] = number
        if not self._waits[user]:
            self._waits[user] = True
            heapq.heappush(self._due, (now_s + self._slack[user], user))

    def claim(self, limit: int, now_s: float) -> list[Task]:  # noqa: ARG002 - the protocol's
        """Give who is due first."""
        tasks: list[Task] = []
        while self._due and len(tasks) < limit:
            _, user = heapq.heappop(self._due)
            self._waits[user] = False
            tasks.append((user, self._newest[user]))
        return tasks


class Index:
    """Ours: value x (1 - d^unseen), the largest first, and a share for who has waited longest."""

    def __init__(
        self, groups: NDArray[np.int64], *, values: NDArray[np.float64], discount: float, floor: float
    ) -> None:
        self._value, self._discount, self._floor = values[groups], discount, floor
        self._newest = np.zeros(len(groups), np.int64)
        self._unseen = np.zeros(len(groups), np.int64)
        self._since = np.full(len(groups), np.inf)
        self._owed = 0.0

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Count a behavior that the list does not know."""
        self._newest[user] = number
        self._unseen[user] += 1
        self._since[user] = min(self._since[user], now_s)

    def claim(self, limit: int, now_s: float) -> list[Task]:  # noqa: ARG002 - the protocol's
        """Give the best, and the longest waiting for the floor's share."""
        waiting = np.flatnonzero(self._unseen)
        limit = min(limit, len(waiting))
        if not limit:
            return []
        self._owed += self._floor * limit
        longest = int(self._owed)
        self._owed -= longest
        overdue = waiting[np.argsort(self._since[waiting], kind="stable")[:longest]]
        index = claim_index(self._value[waiting], self._unseen[waiting], discount=self._discount)
        index[np.isin(waiting, overdue)] = -1.0
        best = waiting[np.lexsort((self._since[waiting], -index))[: limit - len(overdue)]]
        chosen = np.concatenate([overdue, best])
        self._unseen[chosen], self._since[chosen] = 0, np.inf
        return list(zip(chosen.tolist(), self._newest[chosen].tolist(), strict=True))
