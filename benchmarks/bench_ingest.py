"""How fast do reported behaviors reach PostgreSQL? Out of the stream in batches, and one commit a request.

LEADRE §4.4.1. In every round a stream of reports of one behavior each (users and ads of a power law) is written by one
persister, marks in the refresh queue included; then as many threads as the User Server has write reports at once, as a
request does that waits for PostgreSQL. At the end reports are added one by one at a steady rate beside a running
persister, and each is timed from its XADD to the batch's commit and settlement. Medians over the rounds. Servers of
their own in a temporary folder, durable as in production.

Usage: python benchmarks/bench_ingest.py [--entries N] [--rounds N] [--rate N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
from redis import Redis
from servers import own_servers, print_figures

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.pipelines.persister import Persister
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import behavior_stream
from leadre.settings import Settings
from leadre.store.records.database import connect, migrate
from leadre.store.records.request_path import store_now

USERS, ADS = 100_000, 10_000
WRITERS = 14
"""Threads of requests that wait; a pool of the database's engine has 15 connections."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000, help="of the stream, in each round")
    parser.add_argument("--waiting", type=int, default=5_000, help="requests that wait, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=int, default=500, help="reports a second while the delay is measured")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which the delay is measured")
    parser.add_argument("--quick", action="store_true", help="10,000 entries, 1,000 requests, 3 rounds, 3 s")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    sizes = (arguments.entries, arguments.waiting, arguments.rounds, arguments.seconds)
    entries, waiting, rounds, seconds = (10_000, 1_000, 3, 3.0) if arguments.quick else sizes
    with own_servers() as settings:
        migrate(settings.database_url)
        figures = measure(
            settings, entries=entries, waiting=waiting, rounds=rounds, rate=arguments.rate, seconds=seconds
        )
    print_figures(figures, as_json=arguments.json)


def measure(
    settings: Settings, *, entries: int, waiting: int, rounds: int, rate: int, seconds: float
) -> dict[str, float]:
    """Return the figures, on a migrated database and an empty Redis."""
    redis = Redis.from_url(settings.redis_url, socket_timeout=30)
    database = connect(settings.database_url)
    persister = Persister(redis=redis, database=database, queue=RefreshQueue.connect(settings.redis_url))
    rng = np.random.default_rng(0)
    batched, single, added = [], [], []
    for _ in range(rounds):
        reports = [
            behavior_stream.encode([row], request_id="r" * 32, arrived_at=now()) for row in made_up(rng, entries)
        ]
        began = time.perf_counter()
        for start in range(0, entries, 1000):
            with redis.pipeline(transaction=False) as pipeline:
                for entry in reports[start : start + 1000]:
                    pipeline.xadd(behavior_stream.STREAM, {behavior_stream.FIELD: entry})
                pipeline.execute()
        added.append(entries / (time.perf_counter() - began))
        began = time.perf_counter()
        done = persister.drain()
        batched.append(entries / (time.perf_counter() - began))
        if (done.new, len(done.dead)) != (entries, 0):
            raise SystemExit(f"{done.new} of {entries} behaviors were written")
        with ThreadPoolExecutor(WRITERS) as pool:
            rows = made_up(rng, waiting)
            began = time.perf_counter()
            list(pool.map(lambda row: store_now(database, [row], arrived_at=now()), rows))
            single.append(waiting / (time.perf_counter() - began))
    lags_ms = 1000 * np.array(delays(redis, persister, rng, rate=rate, seconds=seconds))
    figures = {
        "persisted_rows_per_s": float(np.median(batched)),
        "persisted_least_rows_per_s": min(batched),
        "sync_rows_per_s": float(np.median(single)),
        "ratio": float(np.median(np.array(batched) / np.array(single))),
        "pipelined_adds_per_s": float(np.median(added)),
        "lag_rate_per_s": rate,
        "lag_p50_ms": float(np.percentile(lags_ms, 50)),
        "lag_p95_ms": float(np.percentile(lags_ms, 95)),
        "lag_p99_ms": float(np.percentile(lags_ms, 99)),
        "entries": entries,
        "rounds": rounds,
    }
    database.dispose()
    redis.close()
    return figures


def delays(redis: Redis, persister: Persister, rng: np.random.Generator, *, rate: int, seconds: float) -> list[float]:
    """Return the seconds from each report's XADD until it was committed and out of the stream."""
    total = int(rate * seconds)
    rows = made_up(rng, total)

    def add_steadily() -> None:
        began = time.perf_counter()
        for number, row in enumerate(rows):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            behavior_stream.add(redis, behavior_stream.encode([row], request_id="r" * 32, arrived_at=now()))

    adding = threading.Thread(target=add_steadily)
    adding.start()
    found: list[float] = []
    while len(found) < total:
        done = persister.step(block_s=1.0)
        present = now()
        found += [(present - arrived_at).total_seconds() for arrived_at in done.arrived]
    adding.join()
    return found


def made_up(rng: np.random.Generator, number: int) -> list[Behavior]:
    """Return clicks of users and ads of a power law; no two are the same."""
    users, ads = (np.minimum(rng.zipf(1.2, number), most) for most in (USERS, ADS))
    began = now()
    return [
        Behavior(
            user_id=int(user),
            domain=Domain.AD,
            action=Action.CLICK,
            item_id=int(ad),
            occurred_at=began - timedelta(microseconds=place),
        )
        for place, (user, ad) in enumerate(zip(users, ads, strict=True))
    ]


def now() -> datetime:
    """Return the present."""
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
