"""How fast do a million users' lists get online? With one process, with two, and by Feast's own local engine.

LEADRE §4.4.1. Rows of `retrieved_ads` with records of 1,150 random bytes, the width of 20 ads; servers of its own in a
temporary folder, Redis without its append-only file. Every way begins with an empty online store and takes everything,
in rounds that take turns; medians of the rounds. Feast's engine is given the users whose lists are of the last two days
(its memory grows with them) in a process of its own; what it wrote is compared with ours, hash by hash. Memory is the
high-water mark of each process. With `--ray` Feast's Ray engine with two workers is a further peer, and is then given
the lists of the last ten days, to count those it leaves out.

Usage: python benchmarks/bench_materialize.py [--users N] [--feast-users N] [--rounds N] [--ray] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
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
from servers import own_servers, print_figures
from sqlalchemy import text

from leadre.errors import FeatureRowMismatch
from leadre.settings import Settings
from leadre.store.features.layout import user_keys
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.partitions import ensure_months

NOW = datetime.now(UTC).replace(microsecond=0)
"""The present, for Ray's engine goes by the clock."""
TWO_DAYS, TEN_DAYS = timedelta(days=2), timedelta(days=10)
VIEW = "retrieved_ads"
ADS, RECORD_BYTES = 20, 1150


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--feast-users", type=int, default=200_000, help="of them, for Feast's engine; 0: without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="Feast's Ray engine as well: pip install 'leadre[scale]'")
    parser.add_argument("--quick", action="store_true", help="60,000 users, 10,000 for Feast, 1 round")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.users, arguments.feast_users, arguments.rounds = 60_000, 10_000, 1
    with own_servers(durable=False) as settings:
        figures = measure(
            settings,
            users=arguments.users,
            feast_users=arguments.feast_users,
            rounds=arguments.rounds,
            ray=arguments.ray,
        )
    print_figures(figures, as_json=arguments.json)


def measure(settings: Settings, *, users: int, feast_users: int, rounds: int, ray: bool) -> dict[str, float]:
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
    peers = [name for name, wanted in (("feast", feast_users > 0), ("feast_ray", ray)) if wanted]
    rates: dict[str, list[float]] = {name: [] for name in ("one_process", "two_process", *peers)}
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
        written_by_us = hashes(online, feast_users)
        for engine in peers:
            online.flushall()
            seconds, memory = by_feast(settings, engine, since=TWO_DAYS)
            rates[engine].append(feast_users / seconds)
            peaks[engine] = max(peaks[engine], memory)
            if hashes(online, feast_users) != written_by_us or online.dbsize() != feast_users:
                raise FeatureRowMismatch(f"{engine} wrote other rows than ours")
    features.close()
    figures = {f"{name}_rows_per_s": median(of_way) for name, of_way in rates.items()}
    if ray:
        online.flushall()
        by_feast(settings, "feast_ray", since=TEN_DAYS)
        figures["feast_ray_left_out"] = users - online.dbsize()
    if feast_users:
        figures["one_over_feast"] = figures["one_process_rows_per_s"] / figures["feast_rows_per_s"]
        figures["feast_peak_rss_mb"] = peaks["feast"]
    return {
        "users": users,
        "feast_users": feast_users,
        "rounds": rounds,
        **figures,
        "two_over_one": median(two / one for one, two in zip(rates["one_process"], rates["two_process"], strict=True)),
        "peak_rss_mb": max(peaks["one_process"], peaks["two_process"]),
    }


def fill(database_url: str, *, users: int, feast_users: int) -> None:
    """Write a list for each user; those for Feast's engines are of the last two days, the others of the week before."""
    database = connect(database_url)
    with transaction(database) as connection:
        ensure_months(connection, "retrieval_log", [NOW - TEN_DAYS, NOW])
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
                "interval '8 days' END - user_id % 80000000 * interval '1 millisecond', 'r', 'i', "
                "ARRAY(SELECT generate_series(1, :ads)), record FROM generate_series(1, :users) AS user_id "
                "JOIN records ON of = user_id % 1000 ORDER BY user_id"
            ),
            {"at": NOW, "feast": feast_users, "ads": ADS, "users": users},
        )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE retrieval_log"))
    database.dispose()


def hashes(online: redis.Redis, users: int) -> int:
    """Return the sum of the hashes of the first users' keys, fields and values."""
    found = 0
    for first in range(1, users + 1, 1000):
        with online.pipeline(transaction=False) as pipeline:
            for key in user_keys(np.arange(first, min(first + 1000, users + 1)), "leadre"):
                pipeline.hgetall(key)  # type: ignore[arg-type]
            found += sum(hash((first + place, *sorted(read.items()))) for place, read in enumerate(pipeline.execute()))
    return found


def by_feast(settings: Settings, engine: str, *, since: timedelta) -> tuple[float, float]:
    """Materialize lists by an engine of Feast's, in a process of its own; return seconds and MiB."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_by_feast, args=(settings.feature_repo, engine, since, its))
    process.start()
    its.close()
    measured: tuple[float, float] = ours.recv()
    process.join()
    return measured


def _by_feast(feature_repo: Path, engine: str, since: timedelta, pipe: Connection) -> None:
    from feast import FeatureStore

    if engine == "feast_ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    profile = "feature_store.ray.yaml" if engine == "feast_ray" else "feature_store.yaml"
    store = FeatureStore(fs_yaml_file=feature_repo / profile)
    store.list_feature_views()  # its imports and the registry are not counted
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        store.materialize(NOW - since, NOW, feature_views=[VIEW])
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
