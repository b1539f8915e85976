"""The refresh queue: which users wait for a new retrieval list, one row a user, in Redis.

LEADRE §4.4.1 (the latency-tolerant module's input, served by ARPU group). Redis Streams and Celery messages hold a row
per request; here a request for a waiting user changes nothing but its priority, so the backlog never exceeds the users.

The life of a row: `mark` makes a user wait; `claim` leases it to a worker, whose token `complete`, `fail` or `release`
must bring back. A lease that runs out returns its user by itself in the next claim. A user marked while claimed waits
again once the claim ends, because the worker may have read its behaviors before the mark. Every operation is one
script: one round trip, atomic, by Redis's own clock. All keys share one hash tag, hence one slot of a Redis Cluster.

Whoever failed before is claimed alone, so that a poison user cannot take others along. Three exceptions, or six lost
leases (a lost lease may be nobody's fault: each counts half), and a user is dead: kept aside until `revive`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, Literal, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.priority import GROUPS

TAG = "{leadre:refresh}"
_KEYS = [f"{TAG}:{name}" for name in ("pending", "again", "leases", "claims", "trouble", "dead", "doorbell", "tokens")]
_PENDING, _AGAIN, _LEASES, _, _, _DEAD, DOORBELL, _ = _KEYS
_FAILURE, _LOST_LEASE = 2, 1
_MARK_CHUNK = 2000
"""Users a script marks at once: a longer one would hold up Redis's other clients for more than about 5 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A leased user. `token` proves to the queue that this very lease is meant, not an earlier or later one."""

    user_id: int
    token: int


class RefreshQueue:
    """The queue's client. Thread-safe, as `redis.Redis` is.

    Args:
        redis: a client with `decode_responses` off or on; its socket timeout must exceed that of `wait`.
        max_attempts: failures after which a user is dead.
    """

    def __init__(self, redis: Redis, *, max_attempts: int = 3) -> None:
        self._redis = redis
        self._bound = max_attempts * _FAILURE
        folder = files("leadre.retrieval")
        common = folder.joinpath("refresh_queue_common.lua").read_text()
        self._mark, self._claim, self._settle = (
            redis.register_script(common + folder.joinpath(f"refresh_queue_{name}.lua").read_text())
            for name in ("mark", "claim", "settle")
        )

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

    def mark(self, user_ids: Sequence[int], *, groups: Sequence[int] | None = None, now: datetime | None = None) -> int:
        """Make users wait for a refresh, and ring the doorbell.

        A user who waits already keeps its place in time and takes the new group. Dead users stay dead.

        Args:
            user_ids: any number, in any order.
            groups: their ARPU groups, 0 (lowest) to 24; None keeps a waiting user's group, and means 0 for others.
            now: the instant; None for Redis's clock.

        Returns:
            How many of them wait now, duplicates counted as given.

        Raises:
            InvalidInput: a group out of bounds, or another number of groups than of users.
            Unavailable: Redis does not answer.
        """
        if groups is not None and len(groups) != len(user_ids):
            raise InvalidInput(f"{len(groups)} ARPU groups for {len(user_ids)} users; give one each", column="groups")
        if groups is not None and any(not 0 <= group < GROUPS for group in groups):
            raise InvalidInput(f"ARPU groups are 0 to {GROUPS - 1}, one of these is not", column="groups")
        marked = 0
        for start in range(0, len(user_ids), _MARK_CHUNK):
            arguments: list[int | str] = [_milliseconds(now)]
            for i in range(start, min(start + _MARK_CHUNK, len(user_ids))):
                arguments += [int(user_ids[i]), "" if groups is None else int(groups[i])]
            with _reachable():
                marked += cast(int, self._mark(keys=_KEYS, args=arguments))
        return marked

    def claim(self, limit: int, *, lease_s: float, now: datetime | None = None) -> list[Claim]:
        """Lease the next users, highest ARPU group first, within a group the longest wait first.

        Args:
            limit: at most this many; fewer when fewer wait, one when the next one failed before.
            lease_s: seconds after which the users go back to the queue unless settled.
            now: the instant; None for Redis's clock.

        Raises:
            Unavailable: Redis does not answer.
        """
        arguments = [_milliseconds(now), limit, int(lease_s * 1000), self._bound, _LOST_LEASE]
        with _reachable():
            token, *users = cast("list[Any]", self._claim(keys=_KEYS, args=arguments))
        return [Claim(user_id=int(user), token=int(token)) for user in users]

    def complete(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """End claims whose work is done; users marked since the claim wait again.

        Returns:
            How many of the claims were still held: the others were taken over by a later lease, and stay with it.

        Raises:
            Unavailable: Redis does not answer.
        """
        return self._end("done", claims, now)

    def fail(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """End claims whose users' work failed: each goes to its group's end, the third time to the dead set.

        Returns and raises as `complete`.
        """
        return self._end("failed", claims, now)

    def release(self, claims: Sequence[Claim], *, now: datetime | None = None) -> int:
        """Give claims back untouched, in their old places, because the fault is not the users'.

        Returns and raises as `complete`.
        """
        return self._end("released", claims, now)

    def missing(self, user_ids: Sequence[int]) -> list[int]:
        """Return those who neither wait nor are claimed nor dead, in the order given.

        Raises:
            Unavailable: Redis does not answer.
        """
        if not user_ids:
            return []
        with _reachable(), self._redis.pipeline(transaction=False) as pipeline:
            for key in (_PENDING, _LEASES, _DEAD):
                for start in range(0, len(user_ids), _MARK_CHUNK):
                    pipeline.zmscore(key, [str(user_id) for user_id in user_ids[start : start + _MARK_CHUNK]])
            scores = [score for chunk in pipeline.execute() for score in cast("list[float | None]", chunk)]
        there = [any(score is not None for score in scores[i :: len(user_ids)]) for i in range(len(user_ids))]
        return [user_id for user_id, known in zip(user_ids, there, strict=True) if not known]

    def depth(self) -> int:
        """Return how many users wait, those included who were marked again while claimed."""
        with _reachable():
            return cast(int, self._redis.zcard(_PENDING)) + cast(int, self._redis.zcard(_AGAIN))

    def claimed(self) -> int:
        """Return how many users are under a lease, run out or not."""
        with _reachable():
            return cast(int, self._redis.zcard(_LEASES))

    def dead(self) -> list[int]:
        """Return the dead users, the longest dead first."""
        with _reachable():
            return [int(user) for user in cast("list[bytes]", self._redis.zrange(_DEAD, 0, -1))]

    def revive(self) -> int:
        """Give every dead user another chance, in the lowest group; return how many there were."""
        users = self.dead()
        if users:
            with _reachable():
                self._redis.zrem(_DEAD, *users)
            self.mark(users)
        return len(users)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the doorbell rings, at most `timeout_s` seconds; return whether it rang.

        Raises:
            Unavailable: Redis does not answer.
        """
        with _reachable():
            return self._redis.blpop([DOORBELL], timeout=timeout_s) is not None

    def _end(
        self, outcome: Literal["done", "failed", "released"], claims: Sequence[Claim], now: datetime | None
    ) -> int:
        if not claims:
            return 0
        arguments: list[int | str] = [outcome, _milliseconds(now), self._bound, _FAILURE]
        for claim in claims:
            arguments += [claim.user_id, claim.token]
        with _reachable():
            return cast(int, self._settle(keys=_KEYS, args=arguments))


def _milliseconds(now: datetime | None) -> int | str:
    return "" if now is None else int(now.timestamp() * 1000)


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise Unavailable(
            f"the refresh queue's Redis does not answer ({type(error).__name__}); is it running?"
        ) from error
