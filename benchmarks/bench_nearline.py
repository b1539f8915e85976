"""How fast is the nearline module around its model: queue, fenced writes, wake-up, and beside the engine alone?

LEADRE §4.4.1. (1) The queue alone, and with a fenced write of a whole list row a user, beside one Celery task a user
that does nothing, or Feast's own online write. (2) Idle: from a mark until the new list is online, through a real
worker with the stub engine; and until the claim. (3) A drain with a model of random weights, beside its engine alone on
the same prompts. Rounds take turns; medians. Servers of its own.

Usage: python benchmarks/bench_nearline.py [--users N] [--round-users N] [--tasks N] [--rounds N] [--marks N] [--quick]
[--json]
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median, quantiles
from typing import Any

import numpy as np
import redis
from bench_queue import backlog, users_per_s
from celery_peer import tasks_per_s
from celery_peer import worker as peer
from celery_write_peer import FOLDER, RECORD_BYTES, write
from nearline_system import engine_fraction, own_system, wait_until_idle, worker
from servers import own_servers, print_figures

from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.store.features.layout import bytes_value, field, timestamp_field, timestamp_value, user_keys
from leadre.store.features.list_reader import read_lists
from leadre.store.features.online_rows import set_rows

BATCH = 256
LOOK_S = 0.0005
"""Between two looks at what an idle worker has done: who looks all the time takes a core from it."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="in the backlog, with ten requests each")
    parser.add_argument("--round-users", type=int, default=20_000, help="who are claimed and completed in a round")
    parser.add_argument("--tasks", type=int, default=1_000, help="of Celery a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--marks", type=int, default=100, help="of one idle user each")
    parser.add_argument(
        "--quick", action="store_true", help="5,000 users, 300 tasks, 3 rounds, 30 marks, a smaller model"
    )
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    options = parser.parse_args()
    if options.quick:
        options.users = options.round_users = 5_000
        options.tasks, options.marks = 300, 30
    with own_servers() as settings:
        figures = backlog(settings.redis_url, users=options.users, requests=10 * options.users)
        figures |= queue_and_writes(settings, users=options.round_users, tasks=options.tasks, rounds=options.rounds)
    with own_system(users=96, batch=32) as system:
        figures |= idle(system, marks=options.marks)
        layers = 2 if options.quick else 4
        figures |= engine_fraction(system, rounds=options.rounds, users=32, width=256, layers=layers)
    print_figures(figures, as_json=options.json)


def queue_and_writes(settings: Any, *, users: int, tasks: int, rounds: int) -> dict[str, float]:
    """Return what the queue does, alone and with a write of each user's list, beside Celery."""
    url = settings.redis_url
    rates: dict[str, list[float]] = {"queue": [], "ours": [], "celery": [], "celery_write": []}
    with peer(url, "celery_write_peer", {FOLDER: str(settings.home)}):
        for round_ in range(rounds):
            rates["queue"].append(users_per_s(url, users=users, seed=round_)[0])
            rates["ours"].append(written_per_s(url, users=users, seed=round_))
            rates["celery"].append(tasks_per_s(url, tasks))
            rates["celery_write"].append(tasks_per_s(url, tasks, write))
    middle = {name: median(of_name) for name, of_name in rates.items()}
    return {
        "queue_users_per_s": middle["queue"],
        "celery_tasks_per_s": middle["celery"],
        "queue_ratio": median(a / b for a, b in zip(rates["queue"], rates["celery"], strict=True)),
        "ours_users_per_s": middle["ours"],
        "celery_write_users_per_s": middle["celery_write"],
        "write_ratio": median(a / b for a, b in zip(rates["ours"], rates["celery_write"], strict=True)),
    }


def written_per_s(url: str, *, users: int, seed: int) -> float:
    """Return how many users a second are claimed, written with a whole list row each, and completed."""
    queue, rng = RefreshQueue.connect(url), np.random.default_rng(seed)
    ids = rng.integers(0, 2**62, users).tolist()
    queue.set_budget(1e6, 1e6)
    for start in range(0, users, 1000):
        queue.mark(ids[start : start + 1000], groups=rng.integers(0, 25, len(ids[start : start + 1000])).tolist())
    fields = timestamp_field("retrieved_ads"), field("retrieved_ads", "retrieved_list")
    value, waiting = bytes_value(bytes(RECORD_BYTES)), queue.depth()
    with redis.Redis.from_url(url) as online:
        began = time.perf_counter()
        while claims := queue.claim(BATCH, lease_s=60):
            keys = user_keys(np.array([claim.user_id for claim in claims]), "ours")
            now = timestamp_value(time.time_ns())
            set_rows(online, [(key, (fields[0], now, fields[1], value)) for key in keys], ttl_s=86_400)
            queue.complete(claims)
        return waiting / (time.perf_counter() - began)


def idle(system: Any, *, marks: int) -> dict[str, float]:
    """Return how long an idle worker takes to wake up, and until a new list is online."""
    queue, rng = RefreshQueue.connect(system.settings.redis_url), random.Random(1)
    claimed_ms, visible_ms = [], []
    with worker(system), redis.Redis.from_url(system.settings.redis_url) as online:
        for _ in range(marks):
            wait_until_idle(queue)
            time.sleep(rng.uniform(0.05, 0.15))
            user = rng.choice(system.user_ids)
            before = read_lists(online, [user], project="leadre")[0]
            began = time.perf_counter()
            queue.mark([user])
            while not queue.claimed():
                time.sleep(LOOK_S)
            claimed_ms.append(1000 * (time.perf_counter() - began))
            while read_lists(online, [user], project="leadre")[0] == before:
                time.sleep(LOOK_S)
            visible_ms.append(1000 * (time.perf_counter() - began))
    return {
        "visible_p50_ms": median(visible_ms),
        "visible_p95_ms": quantiles(visible_ms, n=20)[18],
        "claimed_p50_ms": median(claimed_ms),
        "claimed_p95_ms": quantiles(claimed_ms, n=20)[18],
    }


if __name__ == "__main__":
    main()
