"""Real workers of the queue `ingest`: killed without mercy, they lose no report and write none twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import behavior_stream
from leadre.store.records.database import connect, transaction
from workers import ingest
from workers.resources import Resources

pytestmark = pytest.mark.slow

LONG_S = 60.0
WORKER = ("worker", "--pool=threads", "-c", "1", "-Q", "ingest", "-l", "INFO")
WORKER += ("--without-gossip", "--without-mingle", "--without-heartbeat")
KILLS = 1  # each takes the start of a worker; tests/chaos kills many


def wait_until(reached: Callable[[], bool], *, log: Path) -> None:
    end = time.monotonic() + LONG_S
    while not reached():
        if time.monotonic() > end:
            pytest.fail("\n".join(path.read_text()[-3000:] for path in sorted(log.glob("process-*.log"))))
        time.sleep(0.02)


def count(database: Engine) -> int:
    with transaction(database) as connection:
        return connection.scalar(text("SELECT count(*) FROM behaviors")) or 0


@pytest.fixture
def system(settings, environment):
    """What `start` runs under: no release is needed to write behaviors."""

    class System:
        pass

    made = System()
    made.settings, made.environment = settings, environment
    return made


def test_killed_workers_lose_no_report_and_the_last_one_ends_when_told(system, start, tmp_path: Path) -> None:
    redis, database = Redis.from_url(system.settings.redis_url), connect(system.settings.database_url)
    accepted: set[tuple[int, int]] = set()
    done = threading.Event()

    def report() -> None:
        rng, item = random.Random(5), 0
        while not done.is_set():
            user, item = rng.randrange(40), item + 1
            clicked = Behavior(
                user_id=user, domain=Domain.AD, action=Action.CLICK, item_id=item, occurred_at=datetime.now(UTC)
            )
            entry = behavior_stream.encode([clicked], request_id=f"r{item}", arrived_at=datetime.now(UTC))
            assert behavior_stream.add(redis, entry)
            accepted.add((user, item))
            time.sleep(0.0005)

    reporter = threading.Thread(target=report)
    reporter.start()
    rng = random.Random(7)
    for _ in range(KILLS):
        before = count(database)
        worker = start("workers.app", *WORKER)
        wait_until(lambda before=before: count(database) > before, log=tmp_path)
        time.sleep(rng.uniform(0, 0.3))
        worker.kill()
        worker.wait()
    last = start("workers.app", *WORKER)
    done.set()
    reporter.join()
    wait_until(lambda: behavior_stream.length(redis) == 0, log=tmp_path)
    with transaction(database) as connection:
        stored = [tuple(row) for row in connection.execute(text("SELECT user_id, item_id FROM behaviors"))]
    assert len(stored) == len(accepted)
    assert set(stored) == accepted
    assert RefreshQueue(redis).depth() == len({user for user, _ in accepted})

    last.terminate()
    assert last.wait(timeout=LONG_S) == 0
    log = (tmp_path / f"process-{KILLS}.log").read_text()
    assert '"event": "persister_waits"' not in log
    database.dispose()
    redis.close()


def test_beat_starts_a_lost_persister_again_but_no_second_one_and_none_in_a_stopping_worker(settings) -> None:
    held = Resources(settings)
    try:
        assert ingest.start(held)
        assert not ingest.start(held)
        held.stopping.set()
        ingest._threads[0].join(LONG_S)
        assert not ingest.start(held)
        held.stopping.clear()
        assert ingest.start(held)
    finally:
        held.stopping.set()
        ingest._threads[0].join(LONG_S)
        ingest._threads.clear()
