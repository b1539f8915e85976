"""A Celery worker of the queue `backfill` makes what `leadre dataset lists` plans."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import text

from leadre.pipelines.dataset.backfill import choose_existing, plan
from leadre.store.past.shards import waiting
from leadre.store.records.database import connect, transaction

from .conftest import USERS, System

OPTIONS = ("--pool=threads", "-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat")


@pytest.mark.slow
def test_a_worker_makes_the_lists_that_wait(system: System, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    database = connect(system.settings.database_url)
    now = system.world.now
    with transaction(database) as connection:
        connection.execute(text("UPDATE releases SET trained_until = :at"), {"at": now - timedelta(days=9)})
    instants = [now - timedelta(days=n) for n in (2, 1)]
    plan(database, choose_existing(database, instants), user_ids=np.arange(USERS))
    start("workers.app", "worker", "-Q", "backfill", *OPTIONS)
    start("workers.app", "call", "workers.dataset.make_past_lists")
    end = time.monotonic() + 120
    while True:
        with transaction(database) as connection:
            left = waiting(connection)
        if not left.shards or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert (left.shards, left.problem) == (0, None)
    with transaction(database) as connection:
        assert connection.scalar(text("SELECT count(*) FROM retrieval_log")) == USERS * 2
    database.dispose()
