"""Redis is wiped: how soon every user's newest list is back, and what is read meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from leadre.derivation import pack
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.store.features import retrieval_log
from leadre.store.features.list_reader import read_lists
from leadre.store.features.list_writer import derive_lists, set_lists
from leadre.store.features.rehydration import MARKER
from leadre.store.records.database import connect, transaction
from tests.chaos.fleet import Fleet, worker
from tests.chaos.world import System, own_system

FIRST_USER, BATCH = 1_000_000, 2_000
PATIENCE_S = 120.0
ADS = 20


def run(*, seed: int, users: int, workers: int) -> dict[str, Any]:
    """Return the figures: `back_s` is from FLUSHALL to the mark that says that all is there again.

    Args:
        seed: of the world.
        users: who have a list each, and every second one an older one in the log.
        workers: processes.
    """
    with own_system(seed=seed, users=50) as system:
        database = connect(system.settings.database_url)
        online = Redis.from_url(system.settings.redis_url, socket_timeout=30)
        now = datetime.now(UTC)
        write_lists(system, database, online, range(FIRST_USER, FIRST_USER + users, 2), now - timedelta(hours=2))
        newest = now - timedelta(hours=1)
        write_lists(system, database, online, range(FIRST_USER, FIRST_USER + users), newest)
        fleet = Fleet(workers, worker, system.environment, log=system.settings.home / "workers.log")
        try:
            _wait_for_mark(online)
            with _readers(system, users, newest) as counts:
                time.sleep(1.0)
                wiped = time.monotonic()
                online.flushall()
                _wait_for_mark(online)
                back_s = time.monotonic() - wiped
                back = sum(
                    row is not None and row.generated_at == newest
                    for start in range(FIRST_USER, FIRST_USER + users, BATCH)
                    for row in read_lists(online, range(start, start + BATCH), project="leadre")
                )
        finally:
            fleet.stop()
            online.close()
            database.dispose()
        return {
            "users": users,
            "back": back,
            "back_s": round(back_s, 2),
            "missing": users - back,
            "lists_per_s": round(users / back_s),
            **dict(sorted(counts.items())),
        }


def write_lists(system: System, database: Engine, online: Redis, user_ids: range, generated_at: datetime) -> None:
    """Write a list for each of some users, to the log and online. One batch serves: a record is nobody's."""
    index = system.index
    lists = [
        RetrievalList(
            user_id=user,
            release="r1",
            index_version=index.version,
            generated_at=generated_at,
            event_at=None,
            release_epoch=1,
            behavior_sequence=1,
            beams=tuple(
                Beam(sid=index.sid_at(row + place), ad_id=int(index.ad_ids[row + place]), log_probability=-place)
                for place in range(ADS)
            ),
        )
        for user, row in enumerate(np.random.default_rng(0).integers(0, len(index) - ADS, BATCH).tolist())
    ]
    derived = derive_lists(lists, index=index, ecpm_of=lambda rows: np.ones(len(rows)))
    records = pack(derived)
    for start in range(0, len(user_ids), BATCH):
        ids = np.array(user_ids[start : start + BATCH])
        with transaction(database) as connection:
            retrieval_log.append(connection, ids, derived, records)
        set_lists(online, ids, derived, records, project="leadre", ttl_s=0)


@contextmanager
def _readers(system: System, users: int, newest: datetime) -> Iterator[Counter[str]]:
    """Read random users' lists all the time; count those that are not the newest as wrong."""
    counts: Counter[str] = Counter(reads=0, wrong=0, empty=0)
    stopping = threading.Event()

    def read() -> None:
        rng = random.Random(0)
        with Redis.from_url(system.settings.redis_url, socket_timeout=5) as client:
            while not stopping.wait(0.002):
                some = [FIRST_USER + rng.randrange(users) for _ in range(10)]
                try:
                    rows = read_lists(client, some, project="leadre")
                except RedisError:
                    counts["failed"] += 1
                    continue
                counts["reads"] += len(rows)
                counts["empty"] += sum(row is None for row in rows)
                counts["wrong"] += sum(row is not None and row.generated_at != newest for row in rows)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield counts
    finally:
        stopping.set()
        thread.join()


def _wait_for_mark(online: Redis) -> None:
    end = time.monotonic() + PATIENCE_S
    while online.get(MARKER) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"no mark within {PATIENCE_S:.0f} s")
        time.sleep(0.02)
