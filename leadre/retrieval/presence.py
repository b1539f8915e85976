"""Who is there: workers and beat say so every ten seconds in Redis, and `leadre doctor` reads it.

LEADRE §4.4.1. A sorted set by the time of the last word, on Redis's own clock; who was silent for half a minute is
forgotten. It names processes, no persons.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from redis import Redis

EVERY_S, FORGOTTEN_S = 10.0, 35.0
"""How often a process says that it is there, and when its silence says that it is not (ours)."""
_ALIVE = "{leadre:presence}:alive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A process that was there a moment ago: "worker" or "beat", the queues it serves, and where it runs."""

    kind: str
    queues: tuple[str, ...]
    place: str


def say_here(redis: Redis, kind: str, queues: Collection[str] = ()) -> None:
    """Say that this process is there.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    now = _now(redis)
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zadd(_ALIVE, {_name(kind, queues): now})
        pipeline.zremrangebyscore(_ALIVE, "-inf", now - FORGOTTEN_S)
        pipeline.execute()


def say_gone(redis: Redis, kind: str, queues: Collection[str] = ()) -> None:
    """Say that this process ends. Raises as `say_here`."""
    redis.zrem(_ALIVE, _name(kind, queues))


def present(redis: Redis) -> list[Present]:
    """Return who was there within the last half minute. Raises as `say_here`."""
    said = redis.zrangebyscore(_ALIVE, _now(redis) - FORGOTTEN_S, "+inf")
    found = (name.decode().split(" ", 2) for name in said)  # type: ignore[union-attr]
    return [
        Present(kind=kind, queues=tuple(queue for queue in queues.split(",") if queue), place=place)
        for kind, queues, place in found
    ]


def keep_saying(redis: Redis, kind: str, queues: Collection[str], *, stopping: threading.Event) -> None:
    """Say so until the process stops. Without Redis nobody hears it, and the next word comes all the same."""
    from redis.exceptions import RedisError

    while not stopping.is_set():
        with suppress(RedisError):
            say_here(redis, kind, queues)
        stopping.wait(EVERY_S)
    with suppress(RedisError):
        say_gone(redis, kind, queues)


def _name(kind: str, queues: Collection[str]) -> str:
    return f"{kind} {','.join(sorted(queues))} {socket.gethostname()}:{os.getpid()}"


def _now(redis: Redis) -> float:
    seconds, microseconds = redis.time()  # type: ignore[misc]
    return float(seconds + microseconds / 1e6)
