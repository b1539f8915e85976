"""The counters that all proxies share, in Redis: a round trip to dispatch, one to release.

LEADRE §4.4.2, "Redis-based global counters". Counted at dispatch, not when an answer is polled: between two polls every
proxy would choose the same instance. All keys share one hash tag, hence one slot of a Redis Cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.balancer.counters import LEASE_MS, Dispatch, Outcome

TAG = "{leadre:engines}"
_KEYS = [f"{TAG}:{name}" for name in ("leases", "dispatches", "instances", "tokens")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """A dispatch, and the work that every instance asked about then had: what a proxy goes by when Redis is away."""

    dispatch: Dispatch
    work: Mapping[str, int]


class SharedCounters:
    """The counters' client. Thread-safe, as `redis.Redis` is. See `leadre.retrieval.balancer.counters.Counters`.

    Args:
        redis: a client with `decode_responses` off or on.
        lease_ms: see `LEASE_MS`.
    """

    def __init__(self, redis: Redis, *, lease_ms: int = LEASE_MS) -> None:
        self._redis, self.lease_ms = redis, lease_ms
        folder = files("leadre.retrieval.balancer")
        common = folder.joinpath("common.lua").read_text()
        self._acquire, self._renew, self._release = (
            redis.register_script(common + folder.joinpath(f"{name}.lua").read_text())
            for name in ("acquire", "renew", "release")
        )

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = 0.5) -> SharedCounters:
        """Open the counters at `url`, `redis://…`; no connection is made yet.

        Args:
            url: where Redis is.
            timeout_s: seconds after which a command that hangs is given up; short, as a proxy can do without.
        """
        retry = Retry(NoBackoff(), 1)  # a pooled connection may be one that Redis's restart has cut
        return cls(Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry))

    def acquire(self, instances: Sequence[str], *, work: int, now: int | None = None) -> Dispatched:
        """Dispatch a request to the instance that will be through with it first, and count it there.

        Args:
            instances: to choose from, at most some hundreds.
            work: what the request costs, at least 1.
            now: the instant, ms; None for Redis's clock.

        Raises:
            InvalidInput: no instance, or no work.
            Unavailable: Redis does not answer.
        """
        if not instances or work < 1:
            raise InvalidInput(f"{work} tokens for {len(instances)} instances; give at least one of each")
        arguments: list[int | str] = ["" if now is None else now, self.lease_ms, work, *instances]
        with _reachable():
            token, place, *loads = cast("list[int]", self._acquire(keys=_KEYS, args=arguments))
        return Dispatched(
            dispatch=Dispatch(token=token, instance=instances[place], work=work),
            work=dict(zip(instances, loads, strict=True)),
        )

    def renew(self, tokens: Sequence[int], *, now: int | None = None) -> int:
        """Extend the leases of dispatches that still run; return how many were held.

        Raises:
            Unavailable: Redis does not answer.
        """
        if not tokens:
            return 0
        with _reachable():
            arguments = ["" if now is None else now, self.lease_ms, *tokens]
            return cast(int, self._renew(keys=_KEYS, args=arguments))

    def release(self, token: int, *, outcome: Outcome, now: int | None = None) -> bool:
        """End a dispatch; ending it again, or after its lease, changes nothing. Return whether it was held.

        Raises:
            Unavailable: Redis does not answer; the dispatch ends with its lease.
        """
        with _reachable():
            return bool(self._release(keys=_KEYS, args=["" if now is None else now, token, outcome]))

    def work(self) -> dict[str, int]:
        """Return the work that every instance has now, those gone for up to an hour included. For people and metrics.

        Raises:
            Unavailable: Redis does not answer.
        """
        with _reachable():
            found = cast("dict[bytes | str, bytes | str]", self._redis.hgetall(_KEYS[2]))
        return {_text(instance): int(_text(record).split()[0]) for instance, record in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise Unavailable(f"the balancer's Redis does not answer ({type(error).__name__}); is it running?") from error
