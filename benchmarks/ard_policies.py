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
from leadre.retrieval.refresh_queue import MOST_UNSEEN

Task = tuple[int, int]


class Policy(Protocol):
    """A queue of stale users."""

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Take note of a user's `number`-th request."""
        ...

    def claim(self, limit: int, now_s: float) -> list[Task]:
        """Give at most `limit` tasks."""
        ...


class Fifo:
    """A Celery task a request, first come first served; with `expires_s` a late one is dropped.

    A task holds what its request saw, and knows no later behavior; `reading`: it reads what is there when it begins.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        *,
        expires_s: float = np.inf,
        strict: bool = False,
        reading: bool = False,
    ) -> None:
        self._newest: dict[int, int] | None = {} if reading else None
        self._group = groups.tolist() if strict else [0] * len(groups)
        self._expires_s = expires_s
        self._queues: list[deque[tuple[int, int, float]]] = [deque() for _ in range(25 if strict else 1)]

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Append a message to the group's queue."""
        self._queues[self._group[user]].append((user, number, now_s))
        if self._newest is not None:
            self._newest[user] = number

    def claim(self, limit: int, now_s: float) -> list[Task]:
        """Give the oldest messages of the highest queue that has any."""
        tasks: list[Task] = []
        for queue in reversed(self._queues):
            while queue and len(tasks) < limit:
                user, number, at = queue.popleft()
                if now_s - at <= self._expires_s:
                    tasks.append((user, number if self._newest is None else self._newest[user]))
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
    """Ours: value x (1 - d^unseen), the largest first, and a share for who has waited longest.

    The order of `leadre.retrieval.refresh_queue`, user by user: a test compares them.
    """

    def __init__(
        self, groups: NDArray[np.int64], *, values: NDArray[np.float64], discount: float, floor: float
    ) -> None:
        self._value = values[groups].tolist()
        unseen = np.arange(MOST_UNSEEN + 1)
        self._lost = claim_index(np.ones(len(unseen)), unseen, discount=discount).tolist()
        self._floor, self._owed = round(floor * 1000), 0
        self._newest, self._unseen = [0] * len(groups), [0] * len(groups)
        self._index = np.full(len(groups), -1.0)
        self._since_ms = np.full(len(groups), np.inf)
        self._count = 0

    def mark(self, user: int, number: int, now_s: float) -> None:
        """Count a behavior that the list does not know."""
        if not self._unseen[user]:
            self._count += 1
            self._since_ms[user] = int(now_s * 1000)
        self._newest[user] = number
        self._unseen[user] += 1
        self._index[user] = self._value[user] * self._lost[min(self._unseen[user], MOST_UNSEEN)]

    def claim(self, limit: int, now_s: float) -> list[Task]:  # noqa: ARG002 - the protocol's
        """Give the longest waiting for the floor's share, then the best."""
        tasks: list[Task] = []
        if self._count > limit:
            longest, self._owed = divmod(self._owed + self._floor * limit, 1000)
            tasks += self._take(self._since_ms, longest)
        return tasks + self._take(-self._index, min(limit - len(tasks), self._count))

    def _take(self, order: NDArray[np.float64], count: int) -> list[Task]:
        if count <= 0:
            return []
        near = np.flatnonzero(order <= np.partition(order, count - 1)[count - 1])
        chosen = near[np.lexsort((self._since_ms[near], order[near]))[:count]].tolist()
        tasks = [(user, self._newest[user]) for user in chosen]
        self._count -= count
        for user in chosen:
            self._unseen[user], self._index[user], self._since_ms[user] = 0, -1.0, np.inf
        return tasks
