"""A worker is killed with a batch in its hands: how soon another one has made the lists of those users."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from leadre.pipelines.drain import LaneWork, drain
from leadre.retrieval.refresh_queue import LEASE_S, RefreshQueue
from tests.chaos.fleet import Fleet, worker
from tests.chaos.kills import PATIENCE_S, converge
from tests.chaos.world import own_system

ASKED_S = 5.0
"""Seconds after which at the latest they should be made."""


def run(*, seed: int, rounds: int, users: int = 16) -> dict[str, Any]:
    """Return the figures: seconds from SIGKILL until nobody of the batch waits or is claimed. Leases are the default.

    Args:
        seed: of the world, and of how long a batch has been at work when it is killed.
        rounds: kills.
        users: of a batch.
    """
    rng = random.Random(seed)
    with own_system(seed=seed, users=users) as system:
        system = replace(system, environment={**system.environment, "LEADRE_LEASE_S": str(LEASE_S)})
        queue = RefreshQueue.connect(system.settings.redis_url)
        log = system.settings.home / "workers.log"
        other = Fleet(1, worker, system.environment, log=log)
        seconds = []
        try:
            converge(system, patience_s=PATIENCE_S)
            for _ in range(rounds):
                _signal(other.pids(), signal.SIGSTOP)  # or it would be first
                queue.mark(system.user_ids)
                holder = Fleet(1, hold, system.settings.redis_url, log=log)
                try:
                    _wait(lambda: queue.claimed() == users)
                    _signal(other.pids(), signal.SIGCONT)
                    time.sleep(rng.uniform(0.5, 1.5) * LEASE_S)  # some renewals later
                finally:
                    _signal(other.pids(), signal.SIGCONT)
                    began = time.monotonic()
                    holder.stop()
                _wait(lambda: not queue.claimed() and not queue.depth())
                seconds.append(time.monotonic() - began)
        finally:
            other.stop()
        return {
            "rounds": rounds,
            "lease_s": LEASE_S,
            "redelivered_p50_s": round(median(seconds), 2),
            "redelivered_longest_s": round(max(seconds), 2),
        }


def hold(log: Path, redis_url: str) -> None:
    """Be a worker whose batch takes for ever: it claims as workers do, and renews its leases."""

    def refresh(_: Sequence[int]) -> None:
        time.sleep(3600)

    queue = RefreshQueue.connect(redis_url)
    drain(queue, lanes=[LaneWork(lane="llm", ready=lambda: refresh, batch=1000)], lease_s=LEASE_S)


def _signal(pids: Sequence[int | None], what: signal.Signals) -> None:
    for pid in pids:
        if pid is not None:
            os.kill(pid, what)


def _wait(condition: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE_S:.0f} s")
        time.sleep(0.005)
