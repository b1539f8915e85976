from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import text

from leadre.store.features.client import FeatureClient
from leadre.store.features.materialization import runs
from leadre.store.features.materialization.definitions import find_views
from leadre.store.records.database import connect, transaction

pytestmark = pytest.mark.slow

WORKER = ("worker", "--pool=threads", "-c", "1", "-Q", "maintenance", "-l", "INFO")
WORKER += ("--without-gossip", "--without-mingle", "--without-heartbeat")


def wait_until(reached: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 90
    while not reached():
        if time.monotonic() > end:
            pytest.fail("\n".join(path.read_text()[-3000:] for path in sorted(log.glob("process-*.log"))))
        time.sleep(0.05)


def test_workers_write_shards_and_whoever_materializes_next_finishes_the_run(system, start, tmp_path: Path) -> None:
    features = FeatureClient(system.settings.feature_repo, system.settings.feast_environment())
    (view,) = find_views(features.store, ["user_profile"])
    database = connect(system.settings.database_url)
    with transaction(database) as connection:
        planned = runs.plan(connection, view, until=datetime.now(UTC), shard_entities=10)
    with Redis.from_url(system.settings.redis_url) as online:  # whoever planned it was killed
        online.hset("leadre:materialized:leadre", view.name, planned.run)

    def count(what: str) -> int:
        with transaction(database) as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {what}")))

    def call(task: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", "workers.app", "call", f"workers.materialization.{task}"]
        subprocess.run(command, env=system.environment, check=True, capture_output=True)

    def left() -> int:
        return count("materialization_shards WHERE read IS NULL")

    assert left() == 5
    start("workers.app", *WORKER)
    for _ in range(2):
        call("materialize_shard")
    wait_until(lambda: left() == 3, tmp_path)
    call("materialize")
    wait_until(
        lambda: count("materializations WHERE finished_at IS NOT NULL") == count("materializations") == 7, tmp_path
    )

    user_ids = [profile.user_id for profile in system.world.profiles]
    ages = [context.profile.age for context in features.contexts(user_ids, now=datetime.now(UTC))]
    assert ages == [profile.age for profile in system.world.profiles]
    features.close()
    database.dispose()
