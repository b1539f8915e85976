"""Persisters while Redis is killed and connections to PostgreSQL are cut: no acknowledged report is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from sqlalchemy import Engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.pipelines.persister import Persister
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.services import redis as server
from leadre.services.account import make_folder
from leadre.services.process import free_port
from leadre.serving import behavior_stream
from leadre.store.records.database import connect, transaction

PASSWORD, LONG_S, ROUNDS = "of-this-test", 60.0, 4
USERS = 20


@pytest.fixture
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="leadre-tests-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def client(port: int) -> Redis:
    return Redis(port=port, password=PASSWORD, socket_timeout=10, retry=Retry(NoBackoff(), 0))


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while True:
        with suppress(RedisError):
            if reached():
                return
        assert time.monotonic() < end
        time.sleep(0.02)


def click(number: int) -> Behavior:
    return Behavior(
        user_id=number % USERS, domain=Domain.AD, action=Action.CLICK, item_id=number, occurred_at=datetime.now(UTC)
    )


def cut_connections(database: Engine) -> None:
    """End every other session in the database, whatever it is doing."""
    with transaction(database) as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


@pytest.mark.slow
def test_redis_killed_and_connections_cut_under_two_persisters_lose_nothing(home: Path, database_url: str) -> None:
    folder, port, rng = make_folder(home), free_port(), random.Random(3)
    database, administrator = (connect(database_url, statement_timeout_s=20) for _ in range(2))
    reporting_ends, stopping = threading.Event(), threading.Event()
    acknowledged: set[int] = set()

    def report() -> None:
        redis, number = client(port), 0
        while not reporting_ends.is_set():
            number += 1
            entry = behavior_stream.encode([click(number)], request_id="r", arrived_at=datetime.now(UTC))
            try:
                assert behavior_stream.add(redis, entry)
                acknowledged.add(number)
                time.sleep(0.001)
            except RedisError:
                time.sleep(0.02)
        redis.close()

    def persist() -> None:
        redis = client(port)
        Persister(redis=redis, database=database, queue=RefreshQueue(redis), idle_s=0.5).run(stopping)
        redis.close()

    threads = [threading.Thread(target=each) for each in (report, persist, persist)]
    server.start(folder, password=PASSWORD, port=port)
    try:
        for thread in threads:
            thread.start()
        for _ in range(ROUNDS):
            reached = len(acknowledged) + rng.randrange(50, 300)
            wait_until(lambda reached=reached: len(acknowledged) > reached)
            cut_connections(administrator)
            time.sleep(rng.uniform(0, 0.2))
            pid = server.running(folder)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while server.running(folder) is not None:
                time.sleep(0.01)
            server.start(folder, password=PASSWORD, port=port)
        reporting_ends.set()
        threads[0].join()
        redis = client(port)
        wait_until(lambda: redis.xlen(behavior_stream.STREAM) == 0)
        with transaction(administrator) as connection:
            stored = list(connection.scalars(text("SELECT item_id FROM behaviors")))
            sequences = connection.scalar(text("SELECT sum(behavior_sequence) FROM user_state"))
        assert acknowledged <= set(stored)
        assert len(stored) == len(set(stored)) == sequences
        assert RefreshQueue(redis).depth() == USERS
        assert redis.xlen(behavior_stream.DEAD) == 0
        redis.close()
    finally:
        reporting_ends.set()
        stopping.set()
        for thread in threads:
            thread.join()
        server.stop(folder)
        database.dispose()
        administrator.dispose()
