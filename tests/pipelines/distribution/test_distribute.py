"""What the queue is told, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import Engine, text

from leadre.domain.users import Profile
from leadre.pipelines.distribution.distribute import distribute, measure_freshness
from leadre.pipelines.distribution.regroup import regroup
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_users
from leadre.store.records.database import connect, transaction

NOW = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    engine = connect(settings.database_url)
    with transaction(engine) as connection:
        profiles = [Profile(user_id=number, arpu=float(number)) for number in range(100)]
        upsert_users(connection, profiles, event_at=NOW)
        regroup(connection, now=NOW)
    yield engine
    engine.dispose()


def marked(queue: RefreshQueue) -> None:
    """All hundred users wait, four a group."""
    queue.mark(list(range(100)), groups=np.repeat(np.arange(25), 4).tolist())


def test_what_the_budget_cannot_serve_in_time_is_the_cheap_lanes(settings: Settings, database: Engine) -> None:
    queue = RefreshQueue.connect(settings.redis_url)
    marked(queue)
    scarce = replace(settings, gpu_budget=1.0, cut_horizon_s=10.0, refresh_batch=4)
    with transaction(database) as connection:
        done = distribute(connection, queue, settings=scarce)
    assert done.cut == queue.stats().cut == 22  # two groups of four within ten users, and the third in part
    assert {claim.group for claim in queue.claim(100, lane="cheap")} == set(range(22))
    assert len(queue.claim(100)) == 4  # the budget's burst: one batch
    gauges = {(name, labels): value for name, labels, value in done.gauges()}
    assert gauges["leadre_arpu_cut", ()] == 22
    assert gauges["leadre_arpu_group_value", (("group", "24"),)] == pytest.approx(97.5)
    with transaction(database) as connection:
        assert distribute(connection, queue, settings=scarce).cut == 21  # nobody waits below: one group a step


def test_without_a_budget_the_llm_serves_everybody_by_value(settings: Settings, database: Engine) -> None:
    queue = RefreshQueue.connect(settings.redis_url)
    marked(queue)
    with transaction(database) as connection:
        assert distribute(connection, queue, settings=replace(settings, floor_share=0.0)).cut == 0
    assert queue.claim(9, lane="cheap") == []
    assert [claim.group for claim in queue.claim(6)] == [24] * 4 + [23] * 2


def test_a_stale_user_costs_freshness_what_its_group_is_worth(settings: Settings, database: Engine) -> None:
    with transaction(database) as connection:
        connection.execute(
            text("INSERT INTO user_state (user_id, newest_behavior_at, behavior_sequence) VALUES (99, :now, 1)"),
            {"now": NOW},
        )
        gauges = {(name, labels): value for name, labels, value in measure_freshness(connection, now=NOW)}
    worth = sum(4 * np.arange(4 * group, 4 * group + 4).mean() for group in range(25))
    assert gauges["leadre_freshness", ()] == pytest.approx(1 - 97.5 / worth, abs=1e-3)
    assert gauges["leadre_stale_users", (("group", "24"),)] == 1
