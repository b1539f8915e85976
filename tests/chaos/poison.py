"""A poison user: what it costs the others, and where it ends."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

from leadre.retrieval.refresh_queue import RefreshQueue
from tests.chaos.fleet import Fleet, worker
from tests.chaos.kills import converge
from tests.chaos.world import System, own_system

PATIENCE_S = 120.0


def run(*, seed: int, users: int, rounds: int) -> dict[str, Any]:
    """Return users a second without and with a poison user among them, and how often it was tried a round.

    Args:
        seed: of the world.
        users: in it.
        rounds: of marking everybody, each way in turn.
    """
    with own_system(seed=seed, users=users, batch=32) as system:
        queue = RefreshQueue.connect(system.settings.redis_url)
        culprit = system.user_ids[users // 2]
        logs = {way: system.settings.home / f"{way}.log" for way in ("well", "poison")}
        per_s: dict[str, list[float]] = {"well": [], "poison": []}
        attempts, dead = [], []
        fleet = Fleet(1, worker, system.environment, log=logs["well"])
        converge(system, patience_s=PATIENCE_S)
        fleet.stop()
        for _ in range(rounds):
            per_s["well"].append(_round(system, queue, Fleet(1, worker, system.environment, log=logs["well"])))
            tried = _failures(logs["poison"])
            with_culprit = Fleet(1, worker, system.environment, culprit, log=logs["poison"])
            per_s["poison"].append(_round(system, queue, with_culprit))
            attempts.append(_failures(logs["poison"]) - tried)
            dead.append(queue.dead() == [culprit])
            queue.revive()
        well, poison = median(per_s["well"]), median(per_s["poison"])
        return {
            "users": users,
            "well_users_per_s": round(well, 1),
            "poison_users_per_s": round(poison, 1),
            "cost": round(1 - poison / well, 4),
            "attempts": median(attempts),
            "always_dead": all(dead),
        }


def _round(system: System, queue: RefreshQueue, fleet: Fleet) -> float:
    """Mark everybody once a worker is warm; return the users a second of it."""
    try:
        _drained(queue, system.user_ids[:1])
        began = time.monotonic()
        _drained(queue, system.user_ids)
        return len(system.user_ids) / (time.monotonic() - began)
    finally:
        fleet.stop()


def _drained(queue: RefreshQueue, users: list[int]) -> None:
    queue.mark(users)
    end = time.monotonic() + PATIENCE_S
    while queue.depth() or queue.claimed():
        if time.monotonic() > end:
            raise TimeoutError(f"users still wait after {PATIENCE_S:.0f} s")
        time.sleep(0.005)


def _failures(log: Path) -> int:
    return log.read_text().count('"event": "refresh_failed"') if log.exists() else 0
