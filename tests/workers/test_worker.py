from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from redis import Redis
from sqlalchemy import text

from leadre.pipelines.refresh import LiveRetriever
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.retrieval.retriever import LIVE_ADS_AGE
from leadre.store.features import retrieval_log
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases

pytestmark = pytest.mark.slow

WORKER = ("worker", "--pool=threads", "-c", "1", "-Q", "retrieval", "-l", "INFO")
WORKER += ("--without-gossip", "--without-mingle", "--without-heartbeat")


def wait_until(reached: Callable[[], bool], *, seconds: float, what: str, log: Path) -> None:
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-3000:] for path in sorted(log.glob("process-*.log")))
            pytest.fail(f"not within {seconds} s: {what}\n{logs}")
        time.sleep(0.02)


def check_lists(system, user_ids: list[int]) -> None:
    """Every user has a list, online and in the log, made from its newest positive behavior."""
    features = FeatureClient(system.settings.feature_repo, system.settings.feast_environment())
    database = connect(system.settings.database_url)
    with transaction(database) as connection:
        newest = events.newest_positive_behavior(connection, user_ids)
        logged = retrieval_log.newest(connection, user_ids)
        assert events.stale_page(connection, now=datetime.now(UTC), limit=10) == []
    database.dispose()
    for user_id, found in zip(user_ids, features.retrieval_lists(user_ids), strict=True):
        assert found is not None
        assert len(found.ad_ids) == len(set(found.ad_ids)) == system.settings.beam_width
        assert (system.index.rows(np.array(found.ad_ids, np.int64)) >= 0).all()
        assert found.release == "r1"
        assert list(found.ad_ids) == logged[user_id]["retrieved_ad_ids"]
        if user_id in newest:
            assert abs(logged[user_id]["behavior_at"] - newest[user_id]) < timedelta(milliseconds=1)
        else:
            assert logged[user_id]["behavior_at"] is None
    features.close()


def test_marked_users_get_lists_through_a_real_worker_that_the_bell_wakes_and_no_garbage_ends(
    system, start, tmp_path: Path
) -> None:
    queue = RefreshQueue.connect(system.settings.redis_url)
    user_ids = [profile.user_id for profile in system.world.profiles]
    queue.mark(user_ids)
    worker = start("workers.app", *WORKER)

    def done() -> bool:
        return queue.depth() == queue.claimed() == 0

    wait_until(done, seconds=120, what="50 lists", log=tmp_path)
    check_lists(system, user_ids)

    with Redis.from_url(system.settings.redis_url) as broker:  # strings in the broker's list that are no messages
        broker.lpush("retrieval", "garbage", "5", "{}", "[]", b"\xff\x00", '{"body": "", "headers": {}}')
        wait_until(lambda: broker.llen("retrieval") == 0, seconds=60, what="no garbage left", log=tmp_path)
    queue.mark(user_ids[:1])
    wait_until(done, seconds=60, what="a list by the doorbell, as no beat runs here", log=tmp_path)
    assert worker.poll() is None

    worker.terminate()
    assert worker.wait(timeout=30) == 0
    log = (tmp_path / "process-0.log").read_text()
    assert '"event": "release_loaded"' in log
    assert "haidian" not in log.lower()  # a residence: no profile may be logged


def test_a_refresh_in_process_sees_promotions_and_paused_ads(system) -> None:
    now = datetime.now(UTC)
    features = FeatureClient(system.settings.feature_repo, system.settings.feast_environment())
    database = connect(system.settings.database_url)
    live = LiveRetriever(system.settings, database=database, features=features)
    user = system.world.profiles[3].user_id

    (first,) = live.refresh([user], now=now)
    assert (first.release, first.index_version) == ("r1", "i1")
    retriever = live.current()
    assert live.current() is retriever  # loaded once

    best = first.beams[0].ad_id
    with transaction(database) as connection:
        catalog.set_live(connection, [best], live=False)
    (second,) = live.refresh([user], now=now + LIVE_ADS_AGE)
    assert best not in {beam.ad_id for beam in second.beams}
    assert len(second.beams) == system.settings.beam_width

    with transaction(database) as connection:
        system.add_release(connection, "r2")
        releases.promote(connection, "r2")
    (third,) = live.refresh([user], now=now + 2 * LIVE_ADS_AGE)
    assert third.release == "r2"
    stored = features.retrieval_lists([user])[0]
    assert stored is not None
    assert (stored.release, list(stored.ad_ids)) == ("r2", [beam.ad_id for beam in third.beams])

    with transaction(database) as connection:
        releases.rollback(connection)
    assert live.current().release == "r1"
    (fourth,) = live.refresh([user], now=now)  # by a clock that is behind, and newer all the same
    assert first.release_epoch == second.release_epoch < third.release_epoch < fourth.release_epoch
    with transaction(database) as connection:
        known = connection.scalar(text("SELECT behavior_sequence FROM user_state WHERE user_id = :u"), {"u": user})
        advanced = connection.scalar(text("SELECT listed_epoch FROM user_state WHERE user_id = :u"), {"u": user})
    assert (fourth.behavior_sequence, advanced) == (known, fourth.release_epoch)
    assert known
    stored = features.retrieval_lists([user])[0]
    assert stored is not None
    assert (stored.release, stored.release_epoch, stored.behavior_sequence) == ("r1", fourth.release_epoch, known)
    features.close()
    database.dispose()
