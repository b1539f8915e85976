"""A killed Redis has everything that it acknowledged, also while the disk is busy."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.services import redis as server
from leadre.services.account import make_folder
from leadre.services.process import free_port
from leadre.serving import behavior_stream

ROUNDS, WRITERS = 6, 3
PASSWORD = "of-this-test"


def write_out(folder: Path, stopping: threading.Event) -> None:
    """Keep the disk busy: Redis's own fsyncs, if it made any, would take long."""
    with (folder / "junk").open("wb") as file:
        while not stopping.is_set():
            file.seek(0)
            file.write(os.urandom(1 << 22))
            file.flush()
            os.fsync(file.fileno())


def add(client: Redis, acknowledged: list[bytes], first: int) -> None:
    """Add reports, each of another ad, until Redis is gone."""
    now = datetime.now(UTC)
    for item_id in range(first, first + 1_000_000):
        clicked = Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=item_id, occurred_at=now)
        entry = behavior_stream.encode([clicked], request_id="r", arrived_at=now)
        try:
            assert behavior_stream.add(client, entry, max_entries=10_000_000)
        except RedisError:
            return
        acknowledged.append(entry)


@pytest.mark.slow
def test_sigkill_of_redis_loses_no_acknowledged_report(open_folder: Path) -> None:
    home = open_folder / "killed"
    home.mkdir(mode=0o711)
    folder, port, rng = make_folder(home), free_port(), random.Random(7)
    stopping = threading.Event()
    busy = threading.Thread(target=write_out, args=(home, stopping))
    busy.start()
    acknowledged: list[bytes] = []
    try:
        for round_number in range(ROUNDS):
            server.start(folder, password=PASSWORD, port=port)
            clients = [Redis(port=port, password=PASSWORD, retry=Retry(NoBackoff(), 0)) for _ in range(WRITERS)]
            firsts = [(round_number * WRITERS + place) * 1_000_000 for place in range(WRITERS)]
            writers = [
                threading.Thread(target=add, args=(client, acknowledged, first))
                for client, first in zip(clients, firsts, strict=True)
            ]
            before = len(acknowledged)
            for writer in writers:
                writer.start()
            time.sleep(rng.uniform(0.8, 1.6))
            pid = server.running(folder)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            for writer in writers:
                writer.join()
            for client in clients:
                client.close()
            assert len(acknowledged) > before
            while server.running(folder) is not None:
                time.sleep(0.01)
        server.start(folder, password=PASSWORD, port=port)
        with Redis(port=port, password=PASSWORD) as client:
            kept = {fields[b"e"] for _, fields in client.xrange(behavior_stream.STREAM)}
        assert not set(acknowledged) - kept
    finally:
        stopping.set()
        busy.join()
        server.stop(folder)
