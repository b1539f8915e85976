"""The broker is restarted again and again: no worker needs a hand."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from leadre import services
from leadre.errors import Unavailable
from leadre.retrieval.refresh_queue import RefreshQueue
from tests.chaos.fleet import Fleet, worker
from tests.chaos.kills import converge
from tests.chaos.world import own_system

PATIENCE_S = 60.0


def run(*, seed: int, restarts: int, workers: int) -> dict[str, Any]:
    """Return how many workers live, and work, after so many restarts, every second of which is a kill.

    Args:
        seed: of the world.
        restarts: of Redis.
        workers: processes.
    """
    with own_system(seed=seed, users=30) as system:
        home, queue = system.settings.home, RefreshQueue.connect(system.settings.redis_url)
        fleet = Fleet(workers, worker, system.environment, log=home / "workers.log")
        waits: list[float] = []
        try:
            converge(system, patience_s=PATIENCE_S)
            before = fleet.pids()
            for number in range(restarts):
                _restart(home, signal.SIGKILL if number % 2 else signal.SIGTERM)
                waits.append(_served(queue, system.user_ids[number % 30]))
            after, working = fleet.pids(), 0
            for pid in after:
                others = [other for other in after if other not in (pid, None)]
                for other in others:
                    os.kill(int(other or 0), signal.SIGSTOP)
                working += _served(queue, system.user_ids[0]) < PATIENCE_S
                for other in others:
                    os.kill(int(other or 0), signal.SIGCONT)
        finally:
            fleet.stop()
        return {
            "restarts": restarts,
            "workers": workers,
            "workers_alive": len(set(before) & set(after)),
            "workers_working": working,
            "not_served": sum(wait >= PATIENCE_S for wait in waits),
            "served_s_median": round(sorted(waits)[len(waits) // 2], 2),
            "served_s_longest": round(max(waits), 2),
        }


def _restart(home: Any, how: signal.Signals) -> None:
    pid = services.status(home).redis_pid
    if pid is not None:
        os.kill(pid, how)
        while services.status(home).redis_pid == pid:
            time.sleep(0.01)
    services.up(home, durable=False)


def _served(queue: RefreshQueue, user: int) -> float:
    """Mark a user; return the seconds until its list is made, or `PATIENCE_S`."""
    began = time.monotonic()
    marked = False
    while time.monotonic() - began < PATIENCE_S:
        try:
            if not marked:
                queue.mark([user])
                marked = True
            elif not queue.depth() and not queue.claimed():
                return time.monotonic() - began
        except Unavailable:
            pass
        time.sleep(0.02)
    return PATIENCE_S
