from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.retrieval.priority import GROUPS, arpu_groups
from leadre.store.records import events, request_path
from leadre.store.records.database import transaction
from leadre.store.records.distribution.arpu import ARPU_GROUPS
from leadre.store.records.partitions import ensure_months, months_before
from workers.materialization import drop_old_months, materialize, reconcile, summarize
from workers.resources import Resources, resources
from workers.retrieval import refresh_users, revive_dead

pytestmark = pytest.mark.slow


@pytest.fixture
def held(system, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """This process's resources, on the system's servers."""
    monkeypatch.setattr(os, "environ", dict(system.environment))
    resources.cache_clear()
    yield resources()
    resources().features.close()
    resources().database.dispose()
    resources.cache_clear()


def test_the_tasks_bring_a_forgotten_user_from_behaviors_to_a_list(system, held: Resources) -> None:
    summarize.run()
    materialize.run()
    user_ids = [profile.user_id for profile in system.world.profiles]
    assert held.features.contexts(user_ids[:1], now=datetime.now(UTC))[0].profile.arpu > 0

    with transaction(held.database) as connection:
        grouped = request_path.arpu_groups(connection, [*user_ids, 10**9])
        in_table = dict(connection.execute(text("SELECT user_id, arpu FROM users")).all())
    expected = arpu_groups(np.array([in_table[user_id] for user_id in user_ids]))
    assert grouped == [*expected.tolist(), 0]
    assert GROUPS == ARPU_GROUPS

    reconcile.run()  # nobody has a list: whoever has a positive behavior is marked, the highest group first
    with transaction(held.database) as connection:
        behaved = events.newest_positive_behavior(connection, user_ids)
    assert held.queue.depth() == len(behaved)
    first = held.queue.claim(1, lease_s=60)
    assert grouped[user_ids.index(first[0].user_id)] == max(grouped[user_ids.index(user_id)] for user_id in behaved)
    held.queue.release(first)

    refresh_users.run()
    assert held.queue.depth() == held.queue.claimed() == 0
    reconcile.run()
    assert held.queue.depth() == 0

    forgotten = user_ids[4]
    now = datetime.now(UTC)
    search = Behavior(
        user_id=forgotten,
        domain=Domain.CONTENT,
        action=Action.SEARCH,
        item_id=system.world.content_items[0].content_id,
        occurred_at=now - timedelta(seconds=5),
    )
    with transaction(held.database) as connection:
        events.append_behaviors(connection, [search], arrived_at=now - timedelta(seconds=5))
    reconcile.run()  # its mark was lost, or Redis was down
    assert [claim.user_id for claim in held.queue.claim(9, lease_s=60)] == [forgotten]


def test_one_process_at_a_time_runs_a_maintenance_task_and_one_drain_a_process(held: Resources) -> None:
    with held.alone("train", at_most_s=60) as first, held.alone("train", at_most_s=60) as second:
        assert (first, second) == (True, False)
    with held.alone("train", at_most_s=60) as again:
        assert again
    assert held.features is not None
    with held.draining:
        assert held.drain() is None


def test_dead_users_get_another_chance(held: Resources) -> None:
    held.queue.mark([3])
    for _ in range(3):
        held.queue.fail(held.queue.claim(1, lease_s=60))
    assert held.queue.dead() == [3]
    revive_dead.run()
    assert (held.queue.dead(), held.queue.depth()) == ([], 1)
    assert held.features is not None


def test_old_months_go_only_where_the_settings_say_so(held: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    def months() -> list[str]:
        with transaction(held.database) as connection:
            return months_before(connection, "retrieval_log", datetime.now(UTC))

    with transaction(held.database) as connection:
        ensure_months(connection, "retrieval_log", [datetime(2020, 2, 1, tzinfo=UTC)])
    drop_old_months.run()
    assert months() == ["retrieval_log_2020_02"]
    monkeypatch.setattr(held, "settings", replace(held.settings, retention_days=30))
    drop_old_months.run()
    assert months() == []
