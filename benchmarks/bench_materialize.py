"""How fast do a million users' lists get online? With one process, with two, and by Feast's own local engine.

LEADRE §4.4.1. Rows of `retrieved_ads` with records of 1,150 random bytes, the width of 20 ads; servers of its own in a
temporary folder, Redis without its append-only file. Every way begins with an empty online store and takes everything,
in rounds that take turns; medians of the rounds. Feast's engine is given a part of the users (its memory grows with
them) in a process of its own, and what it wrote is compared with ours. Memory is the high-water mark of each process.

Usage: python benchmarks/bench_materialize.py [--users N] [--feast-users N] [--rounds N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import numpy as np
import redis
from sqlalchemy import text

from leadre import services
from leadre.errors import FeatureRowMismatch
from leadre.settings import Settings
from leadre.store.features.layout import user_keys
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.partitions import ensure_months

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
VIEW = "retrieved_ads"
ADS, RECORD_BYTES = 20, 1150
SAMPLED = 1000
REPOSITORY = Path(__file__).parents[1] / "feature_repo"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--feast-users", type=int, default=200_000, help="of them, for Feast's engine")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="60,000 users, 10,000 for Feast, 1 round")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.users, arguments.feast_users, arguments.rounds = 60_000, 10_000, 1
    home = Path(tempfile.mkdtemp(prefix="leadre-bench-"))
    home.chmod(0o711)  # under root the servers' account passes through it
    try:
        servers = services.up(home, durable=False)
        settings = Settings(
            home=home, database_url=servers.database_url, redis_url=servers.redis_url, feature_repo=REPOSITORY
        )
        figures = measure(settings, users=arguments.users, feast_users=arguments.feast_users, rounds=arguments.rounds)
    finally:
        services.down(home)
        shutil.rmtree(home)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:<32}{value:>14,.2f}")


def measure(settings: Settings, *, users: int, feast_users: int, rounds: int) -> dict[str, float]:
    """Return the figures: rows a second by way of materializing, and memory."""
    # Here, for the processes that are started read this file anew, and need no Feast.
    from leadre.pipelines.materialize import materialize
    from leadre.store.features.client import FeatureClient
    from leadre.store.features.command import run_feast

    migrate(settings.database_url)
    os.environ.update(settings.feast_environment())
    run_feast(settings.feature_repo, "apply")
    fill(settings.database_url, users=users, feast_users=feast_users)
    online = redis.Redis.from_url(settings.redis_url)
    online.config_set("appendonly", "no")  # its rewriting would be measured as well
    features = FeatureClient(settings.feature_repo, settings.feast_environment())
    rates: dict[str, list[float]] = {"one_process": [], "two_process": [], "feast": []}
    peaks: dict[str, float] = dict.fromkeys(rates, 0.0)

    def ours(processes: int) -> int:
        done = materialize(
            features, now=NOW, views=[VIEW], full=True, processes=processes, shard_entities=max(users // 10, 1)
        )
        return done.written[VIEW]

    ways: dict[str, Callable[[], int]] = {"one_process": lambda: ours(1), "two_process": lambda: ours(2)}
    for _ in range(rounds):
        for name, way in ways.items():
            online.flushall()
            with peak_rss_mb() as peak:
                began = time.perf_counter()
                written = way()
                rates[name].append(users / (time.perf_counter() - began))
            peaks[name] = max(peaks[name], *peak)
            if written != users or online.dbsize() != users + 1:  # and the note of the run
                raise FeatureRowMismatch(f"{written:,} of {users:,} rows were written; Redis has {online.dbsize():,}")
        before = sample(online)
        online.flushall()
        seconds, memory = feast_alone(settings)
        rates["feast"].append(feast_users / seconds)
        peaks["feast"] = max(peaks["feast"], memory)
        if online.dbsize() != feast_users or sample(online) != before:
            raise FeatureRowMismatch("Feast's engine wrote other rows than ours")
    features.close()
    figures = {f"{name}_rows_per_s": median(of_way) for name, of_way in rates.items()}
    return {
        "users": users,
        "feast_users": feast_users,
        "rounds": rounds,
        **figures,
        "two_over_one": median(two / one for one, two in zip(rates["one_process"], rates["two_process"], strict=True)),
        "one_over_feast": figures["one_process_rows_per_s"] / figures["feast_rows_per_s"],
        "peak_rss_mb": max(peaks["one_process"], peaks["two_process"]),
        "feast_peak_rss_mb": peaks["feast"],
    }


def fill(database_url: str, *, users: int, feast_users: int) -> None:
    """Write a list for each user; the lists for Feast's engine are of the last two days, the others older."""
    database = connect(database_url)
    with transaction(database) as connection:
        ensure_months(connection, "retrieval_log", [NOW])
        connection.execute(
            text(
                "CREATE TEMPORARY TABLE records AS "
                "SELECT of, substr(decode(string_agg(md5(random()::text), ''), 'hex'), 1, :bytes) AS record "
                "FROM generate_series(0, 999) AS of, generate_series(1, :bytes / 16 + 1) GROUP BY of"
            ),
            {"bytes": RECORD_BYTES},
        )
        connection.execute(
            text(
                "INSERT INTO retrieval_log (user_id, event_at, release, index_version, retrieved_ad_ids, record) "
                "SELECT user_id, CAST(:at AS timestamptz) - CASE WHEN user_id <= :feast THEN interval '1 day' ELSE "
                "interval '3 days' END - user_id % 80000000 * interval '1 millisecond', 'r', 'i', "
                "ARRAY(SELECT generate_series(1, :ads)), record FROM generate_series(1, :users) AS user_id "
                "JOIN records ON of = user_id % 1000 ORDER BY user_id"
            ),
            {"at": NOW, "feast": feast_users, "ads": ADS, "users": users},
        )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE retrieval_log"))
    database.dispose()


def sample(online: redis.Redis) -> list[dict[bytes, bytes]]:
    """Return the hashes of the first users."""
    with online.pipeline(transaction=False) as pipeline:
        for key in user_keys(np.arange(1, SAMPLED + 1), "leadre"):
            pipeline.hgetall(key)  # type: ignore[arg-type]
        read: list[dict[bytes, bytes]] = pipeline.execute()
    return read


def feast_alone(settings: Settings) -> tuple[float, float]:
    """Materialize the last two days with Feast's engine in a process of its own; return seconds and MiB."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_feast, args=(settings.feature_repo, its))
    process.start()
    its.close()
    measured: tuple[float, float] = ours.recv()
    process.join()
    return measured


def _feast(feature_repo: Path, pipe: Connection) -> None:
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(feature_repo))
    store.list_feature_views()  # its imports and the registry are not counted
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        store.materialize(NOW - timedelta(days=2), NOW, feature_views=[VIEW])
    pipe.send((time.perf_counter() - began, _high_water_mb(os.getpid())))


@contextmanager
def peak_rss_mb() -> Iterator[list[float]]:
    """Give a list that holds the high-water mark of this process and of each it starts, in MiB, at the end."""
    Path("/proc/self/clear_refs").write_text("5")  # the mark begins anew
    seen: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in multiprocessing.active_children():
                with suppress(OSError, IndexError):
                    seen[process.pid or 0] = _high_water_mb(process.pid or 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    peaks: list[float] = []
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()
        peaks += [_high_water_mb(os.getpid()), *seen.values()]


def _high_water_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
