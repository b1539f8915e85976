"""The refresh queue: which users wait for a new retrieval list, one row a user, in Redis.

LEADRE §4.4.1 (the latency-tolerant module's input; Adaptive Resource Distribution over 25 ARPU groups). Redis Streams
and Celery messages hold a row per request; here a request for a waiting user changes nothing but its priority, so the
backlog never exceeds the users. docs/adr/0013-refresh-queue.md has the order and why it is so.

The life of a row: `mark` makes a user wait; `claim` leases it to a worker, whose token `complete`, `fail` or `release`
must bring back, and `renew` before the lease runs out. A lease that runs out returns its user by itself in the next
claim. A user marked while claimed waits again once the claim ends, because the worker may have read its behaviors
before the mark. Every operation is one script: one round trip, atomic, by Redis's own clock. All keys share one hash
tag, hence one slot of a Redis Cluster.

Whoever failed before is claimed alone, so that a poison user cannot take others along. Three exceptions, or six lost
leases (a lost lease may be nobody's fault: each counts half), and a user is dead: kept aside until `revive`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from leadre.errors import InvalidInput
from leadre.retrieval.priority import GROUPS
from leadre.retrieval.refresh_queue_keys import (
    AGAIN,
    CLAIMS,
    DEAD,
    DOORBELL,
    KEYS,
    LEASES,
    PENDING,
    TAG,
    TROUBLE,
    WAITING,
    milliseconds,
    reachable,
    script,
)
from leadre.retrieval.refresh_queue_policy import QueuePolicy
from leadre.retrieval.refresh_queue_stats import QueueStats

__all__ = ["DOORBELL", "LEASE_S", "MOST_UNSEEN", "TAG", "Claim", "Lane", "QueueStats", "RefreshQueue"]

_FAILURE = 2
_CHUNK = 256
"""Users a script handles at once: a longer one would hold up Redis's other clients for more than about 5 ms."""

LEASE_S = 4.0
"""Seconds a claim lasts unless it is renewed (ours): a dead worker's users are claimed again within 5 s."""
MOST_UNSEEN = 31
"""Unseen requests are counted up to this; by then a user has all of its value, for 1 - .8^31 = .999."""

Lane = Literal["llm", "cheap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A leased user. `token` proves to the queue that this very lease is meant, not an earlier or later one.

    Attributes:
        group: the user's ARPU group, 0 to 24.
        unseen: requests since its last completed refresh, 31 for more.
        waiting_s: seconds from the first of them, or from the last failure, to the claim.
    """

    user_id: int
    token: int
    group: int
    unseen: int
    waiting_s: float


class RefreshQueue(QueuePolicy):
    """The queue's client. Thread-safe, as `redis.Redis` is.

    Every method raises `Unavailable` when Redis does not answer.

    Args:
        redis: a client with `decode_responses` off; its socket timeout must exceed that of `wait`.
        max_attempts: failures after which a user is dead.
    """

    def __init__(self, redis: Redis, *, max_attempts: int = 3) -> None:
        super().__init__(redis)
        self._bound = max_attempts * _FAILURE
        self._mark, self._settle, self._due, self._stats = (
            script(redis, name) for name in ("mark", "settle", "due", "stats")
        )
        self._claim = script(redis, "order", "claim")

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 5.0) -> RefreshQueue:
        """Open the queue at `url`, `redis://…`; no connection is made yet.

        Args:
            url: where Redis is.
            timeout_s: seconds after which a command that hangs is given up.
        """
        return cls(
            Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=min(1.0, timeout_s),
                retry=Retry(NoBackoff(), 1),  # a pooled connection may be one that Redis's restart has cut
            )
        )

    def mark(
        self,
        user_ids: Sequence[int],
        *,
        groups: Sequence[int] | None = None,
        new: bool = False,
        now: datetime | None = None,
    ) -> int:
        """Make users wait for a refresh, and ring the doorbell. Each id given is one request.

        A user who waits already keeps its place in time, takes the new group and has one more unseen request. Dead
        users stay dead.

        Args:
            user_ids: any number, in any order.
            groups: their ARPU groups, 0 (lowest) to 24; None keeps a waiting user's group, and means 0 for others.
            new: whether these users never had a list: the cheap lane gives them one at once.
            now: the instant; None for Redis's clock.

        Returns:
            How many of the requests wait now.

        Raises:
            InvalidInput: a group out of bounds, or another number of groups than of users.
        """
        if groups is not None and len(groups) != len(user_ids):
            raise InvalidInput(f"{len(groups)} ARPU groups for {len(user_ids)} users; give one each", column="groups")
        if groups is not None and any(not 0 <= group < GROUPS for group in groups):
            raise InvalidInput(f"ARPU groups are 0 to {GROUPS - 1}, one of these is not", column="groups")
        requests: dict[int, int] = {}
        for user_id in map(int, user_ids):
            requests[user_id] = requests.get(user_id, 0) + 1
        group_of = {} if groups is None else dict(zip(map(int, user_ids), map(int, groups), strict=True))
        users, marked = list(requests), 0
        for start in range(0, len(users), _CHUNK):
            arguments: list[int | str] = [milliseconds(now), int(new)]
            for user in users[start : start + _CHUNK]:
                arguments += [user, group_of.get(user, ""), requests[user]]
            marked += self._run(self._mark, arguments)
        return marked

    def claim(
        self, limit: int, *, lease_s: float = LEASE_S, lane: Lane = "llm", now: datetime | None = None
    ) -> list[Claim]:
        """Lease the next users of a lane.

        `llm`: within the budget, a share of the longest waiting ones (`set_floor`), then by value, the groups from the
        cut on before those below. `cheap`: the users who never had a list, then the groups below the cut, by value.
        Value is the group's, times 1 - discount^unseen; of equal values, the longest wait first.

        Args:
            limit: at most this many, and at most 256; fewer when fewer wait or the budget allows no more, one when
                the next one failed before.
            lease_s: seconds after which the users go back to the queue unless settled or renewed.
            lane: who will make the lists.
            now: the instant; None for Redis's clock.
        """
        arguments = [milliseconds(now), min(limit, _CHUNK), int(lease_s * 1000), lane, self._bound]
        token, at_ms, *found = cast("list[Any]", self._run(self._claim, arguments))
        return [_claim_of(int(user), token, int(score), at_ms) for user, score in zip(found[::2], found[1::2])]  # noqa: B905

    def renew(self, claims: Sequence[Claim], lease_s: float = LEASE_S, *, now: datetime | None = None) -> int:
        """Let the claims' leases run for another `lease_s` seconds from now; a third of a lease is a good rhythm.

        Returns:
            How many of the claims were still held.
        """
        return self._end("renewed", claims, now, lease_s)

    def complete(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """End claims whose work is done; users marked since the claim wait again.

        Users who never had a list and got one from the cheap lane wait on for the LLM, unless below the cut.

        Returns:
            How many of the claims were still held: the others were taken over by a later lease, and stay with it.
        """
        return self._end("done", claims, now)

    def fail(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """End claims whose users' work failed: each waits as if from now on, the third time it is dead.

        Returns as `complete`.
        """
        return self._end("failed", claims, now)

    def release(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """Give claims back untouched, in their old places, because the fault is not the users'.

        Returns as `complete`.
        """
        return self._end("released", claims, now)

    def forget(self, user_ids: Sequence[int]) -> int:
        """Remove all that the queue holds of users, claims included; return how many of them it held."""
        users = [str(user) for user in user_ids]
        if not users:
            return 0
        with reachable(), self._redis.pipeline(transaction=True) as pipeline:
            for key in (PENDING, LEASES, DEAD, WAITING, AGAIN):
                pipeline.zrem(key, *users)
            for key in (CLAIMS, TROUBLE):
                pipeline.hdel(key, *users)
            return sum(pipeline.execute()[:3])  # a user is in one of these

    def missing(self, user_ids: Sequence[int]) -> list[int]:
        """Return those who neither wait nor are claimed nor dead, in the order given."""
        if not user_ids:
            return []
        with reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for key in (PENDING, LEASES, DEAD):
                for start in range(0, len(user_ids), _CHUNK):
                    pipeline.zmscore(key, [str(user_id) for user_id in user_ids[start : start + _CHUNK]])
            scores = [score for chunk in pipeline.execute() for score in cast("list[float | None]", chunk)]
        there = [any(score is not None for score in scores[at :: len(user_ids)]) for at in range(len(user_ids))]
        return [user_id for user_id, known in zip(user_ids, there, strict=True) if not known]

    def depth(self) -> int:
        """Return how many users wait, those included who were marked again while claimed."""
        with reachable():
            return cast(int, self._redis.zcard(PENDING)) + cast(int, self._redis.zcard(AGAIN))

    def claimed(self) -> int:
        """Return how many users are under a lease, run out or not."""
        with reachable():
            return cast(int, self._redis.zcard(LEASES))

    def dead(self) -> list[int]:
        """Return the dead users, the longest dead first."""
        with reachable():
            return [int(user) for user in cast("list[bytes]", self._redis.zrange(DEAD, 0, -1))]

    def stats(self, *, now: datetime | None = None) -> QueueStats:
        """Return depth and longest wait by group, what the budget allows, and counts."""
        return QueueStats.read(self._run(self._stats, [milliseconds(now)]))

    def revive(self, *, now: datetime | None = None) -> int:
        """Give every dead user another chance, in the lowest group; return how many there were."""
        users = self.dead()
        if users:
            with reachable():
                self._redis.zrem(DEAD, *users)
            self.mark(users, now=now)
        return len(users)

    def due(self, *, now: datetime | None = None) -> bool:
        """Return whether a claim would bring something now: a lease ran out, or a user waits whom the budget allows.

        Time alone makes it true, and time rings no doorbell: ask after a `wait` in vain.
        """
        return bool(self._run(self._due, [milliseconds(now)]))

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the doorbell rings, at most `timeout_s` seconds; return whether it rang."""
        with reachable():
            return self._redis.blpop([DOORBELL], timeout=timeout_s) is not None

    def _end(
        self,
        outcome: Literal["done", "failed", "released", "renewed"],
        claims: Sequence[Claim],
        now: datetime | None,
        lease_s: float = 0,
    ) -> int:
        held, different = 0, list(dict.fromkeys(claims))
        for start in range(0, len(different), _CHUNK):
            arguments: list[int | str] = [outcome, milliseconds(now), self._bound, int(lease_s * 1000)]
            for claim in different[start : start + _CHUNK]:
                arguments += [claim.user_id, claim.token]
            held += self._run(self._settle, arguments)
        return held

    def _run(self, script: Script, arguments: Sequence[int | str]) -> Any:
        with reachable():
            return script(keys=KEYS, args=arguments)


def _claim_of(user_id: int, token: int, score: int, now_ms: int) -> Claim:
    """Read a row as refresh_queue_common.lua writes it."""
    row, since_ms = divmod(score, 2**42)
    group, unseen = divmod(row % 1024, 32)
    return Claim(user_id=user_id, token=token, group=group, unseen=unseen, waiting_s=max(0, now_ms - since_ms) / 1000)
