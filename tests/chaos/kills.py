"""The main scenario: everything is killed while clients report and read; then nothing may be lost, old or stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.behavior_stream import STREAM
from leadre.store.features.list_reader import read_lists
from leadre.store.records.database import connect, transaction
from tests.chaos import plain
from tests.chaos.clients import Clients, Reported
from tests.chaos.fleet import Fleet, plain_worker, user_server, worker
from tests.chaos.killer import Killer, schedule
from tests.chaos.world import System, own_system

PATIENCE_S = 90.0


def run(*, seconds: float, seed: int, workers: int, users: int, per_s: float, celery: bool) -> dict[str, Any]:
    """Return what came of it.

    Args:
        seconds: of killing.
        seed: of the world, the clients and the kills.
        workers: processes of ours, and as many of plain Celery.
        users: in the world.
        per_s: behaviors reported a second, and tasks given to plain Celery.
        celery: whether plain Celery runs beside.
    """
    with own_system(seed=seed, users=users) as system, user_server(system) as port:
        logs = system.settings.home
        fleets: list[Fleet] = []
        clients = Clients(system, port, seed=seed, per_s=per_s)
        peer = _Peer(system.settings.redis_url, per_s=per_s) if celery else None
        killer = Killer(logs, fleets, schedule(seed, seconds))
        try:
            fleets.append(Fleet(workers, worker, system.environment, log=logs / "workers.log"))
            if celery:
                fleets.append(Fleet(workers, plain_worker, system.settings.redis_url, log=logs / "plain.log"))
            converge(system, patience_s=PATIENCE_S)  # all have started, and every user has a list
            clients.start()
            began = time.monotonic()
            with killer.at_work():
                while time.monotonic() - began < seconds:
                    if peer is not None:
                        peer.publish()
                    time.sleep(1 / per_s)
            clients.stop_reporting()
            converged_s = converge(system, patience_s=PATIENCE_S)
            clients.stop()
            database = connect(system.settings.database_url)
            found = {
                "seconds": seconds,
                "seed": seed,
                "accepted": len(clients.accepted),
                "lost": lost(database, clients.accepted),
                "backward": len(clients.backward),
                "stale": len(stale(system, database)),
                "converged_s": round(converged_s, 2),
                "celery_accepted": 0 if peer is None else peer.accepted,
                "celery_lost": 0 if peer is None else peer.lost(),
                "worker_kills": fleets[0].kills,
                "redis_kills": killer.counts["redis"],
                "postgres_kills": killer.counts["postgres"],
                "workers_ended": fleets[0].ended,
                **dict(sorted(clients.counts.items())),
            }
            database.dispose()
            return found
        finally:
            clients.stop()
            for fleet in fleets:
                fleet.stop()


@dataclass(kw_only=True)
class Backlog:
    """What is still to be done."""

    stream: int
    waiting: int
    claimed: int
    stale: int

    def __bool__(self) -> bool:
        return bool(self.stream or self.waiting or self.claimed or self.stale)


def converge(system: System, *, patience_s: float) -> float:
    """Wait until nothing waits and nobody is stale; return the seconds it took, `patience_s` if it never came."""
    database = connect(system.settings.database_url)
    queue = RefreshQueue.connect(system.settings.redis_url)
    began = time.monotonic()
    try:
        with Redis.from_url(system.settings.redis_url) as online:
            while backlog(system, database, queue, online):
                if time.monotonic() - began > patience_s:
                    return patience_s
                time.sleep(0.05)
        return time.monotonic() - began
    finally:
        database.dispose()


def backlog(system: System, database: Engine, queue: RefreshQueue, online: Redis) -> Backlog:
    """Return what is still to be done."""
    return Backlog(
        stream=int(online.xlen(STREAM)),
        waiting=queue.depth(),
        claimed=queue.claimed(),
        stale=len(stale(system, database)),
    )


def stale(system: System, database: Engine) -> list[int]:
    """Return users whose list online was not made from all of their behaviors in PostgreSQL."""
    with transaction(database) as connection:
        query = text("SELECT user_id, behavior_sequence FROM user_state WHERE behavior_sequence > 0")
        newest = {user_id: sequence for user_id, sequence in connection.execute(query)}  # noqa: C416 - rows
    users = list(newest)
    with Redis.from_url(system.settings.redis_url, socket_timeout=5) as online:
        rows = read_lists(online, users, project="leadre")
    return [user for user, row in zip(users, rows, strict=True) if row is None or row.behavior_sequence < newest[user]]


def lost(database: Engine, accepted: Sequence[Reported]) -> int:
    """Return how many of the behaviors that were acknowledged are not in PostgreSQL."""
    with transaction(database) as connection:
        query = text("SELECT user_id, item_id, occurred_at FROM behaviors WHERE action = 'click'")
        there = {(user, item, at) for user, item, at in connection.execute(query)}
    return len(set(accepted) - there)


class _Peer:
    """Plain Celery: what was given to it, and what never ran."""

    def __init__(self, redis_url: str, *, per_s: float) -> None:
        self._app, self._per_s = plain.make_app(redis_url), per_s
        self._results = f"{redis_url.rpartition('/')[0]}/2"
        self.accepted = 0

    def publish(self) -> None:
        """Give it a task; one that the broker did not take does not count."""
        try:
            self._app.tasks["work"].apply_async((self.accepted,), retry=False)
        except Exception:  # noqa: BLE001 - whatever kombu raises: it was not accepted
            return
        self.accepted += 1

    def lost(self) -> int:
        """Return how many tasks never ran, after all that its timeouts may still bring back had time to come."""

        def count() -> int:
            with Redis.from_url(self._results) as results:
                return int(results.scard(plain.DONE))

        _settled(count, target=self.accepted, quiet_s=2.5 * plain.VISIBILITY_S)
        return self.accepted - count()


def _settled(count: Callable[[], int], *, target: int, quiet_s: float) -> None:
    """Wait until a count reaches its target, or stands still for a while."""
    last, at = -1, time.monotonic()
    while (now := _or_last(count, last)) < target and time.monotonic() - at < quiet_s:
        if now != last:
            last, at = now, time.monotonic()
        time.sleep(0.2)


def _or_last(count: Callable[[], int], last: int) -> int:
    try:
        return count()
    except RedisError:
        return last
