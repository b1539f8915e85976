"""How many users a second does the refresh queue hand out and take back, and what does a backlog cost?

LEADRE §4.4.1. Ours: claim 256 users, complete them, until nobody waits; users of all ARPU groups, two requests each on
average, a budget that is never reached, floor 10 %. Peer: one Celery task a user that does nothing. Both take turns on
one durable Redis; medians of the rounds. Memory is Redis's own count, users have 62-bit ids.

Usage: python benchmarks/bench_queue.py [--users N] [--tasks N] [--rounds N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles

import numpy as np
import redis
from celery_peer import tasks_per_s, worker
from servers import own_servers, print_figures

from leadre.retrieval.priority import GROUPS
from leadre.retrieval.refresh_queue import RefreshQueue

BATCH, CHUNK = 256, 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="in the backlog, with ten requests each")
    parser.add_argument("--tasks", type=int, default=5_000, help="of Celery a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="5,000 users, 500 tasks, 3 rounds")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    options = parser.parse_args()
    if options.quick:
        options.users, options.tasks, options.rounds = 5_000, 500, 3
    with own_servers() as settings:
        figures = measure(settings.redis_url, users=options.users, tasks=options.tasks, rounds=options.rounds)
    print_figures(figures, as_json=options.json)


def measure(url: str, *, users: int, tasks: int, rounds: int) -> dict[str, float]:
    """Return the figures; Redis must be empty."""
    figures = backlog(url, users=users, requests=10 * users)
    ours, peer, waits_ms = [], [], []
    with worker(url):
        for round_ in range(rounds):
            rate, waits = users_per_s(url, users=users, seed=round_)
            ours.append(rate)
            waits_ms += waits
            peer.append(tasks_per_s(url, tasks))
    figures |= {"queue_users_per_s": median(ours), "celery_tasks_per_s": median(peer)}
    figures["ratio"] = median(ours) / median(peer)
    return figures | {"claim_p99_ms": quantiles(waits_ms, n=100)[98], "claim_p50_ms": median(waits_ms)}


def users_per_s(url: str, *, users: int, seed: int = 0) -> tuple[float, list[float]]:
    """Return how many users a second are claimed and completed, and the milliseconds of each claim."""
    queue = RefreshQueue.connect(url)
    queue.set_budget(1e6, 1e6)
    _mark(queue, users=users, requests=2 * users, seed=seed)
    waiting, waits_ms = queue.depth(), []
    began = time.perf_counter()
    while True:
        asked = time.perf_counter()
        claims = queue.claim(BATCH, lease_s=60)
        if not claims:
            return waiting / (time.perf_counter() - began), waits_ms
        waits_ms.append(1000 * (time.perf_counter() - asked))
        queue.complete(claims)


def backlog(url: str, *, users: int, requests: int) -> dict[str, float]:
    """Return the memory of a backlog, and how fast it came about; it is gone afterwards."""
    with redis.Redis.from_url(url) as client:
        before = client.info("memory")["used_memory"]
        queue = RefreshQueue.connect(url)
        began = time.perf_counter()
        _mark(queue, users=users, requests=requests, seed=0)
        seconds = time.perf_counter() - began
        used = client.info("memory")["used_memory"] - before
        waiting = queue.depth()
        client.flushdb()
    return {
        "mark_requests_per_s": requests / seconds,
        "backlog_mb": used / 1e6,
        "bytes_per_pending_user": used / waiting,
        "pending_users": waiting,
    }


def _mark(queue: RefreshQueue, *, users: int, requests: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user_ids = rng.integers(0, 2**62, users)
    groups = rng.integers(0, GROUPS, users)
    asked = np.concatenate([np.arange(users), rng.integers(0, users, requests - users)])
    for start in range(0, requests, CHUNK):
        some = asked[start : start + CHUNK]
        queue.mark(user_ids[some].tolist(), groups=groups[some].tolist())


if __name__ == "__main__":
    main()
