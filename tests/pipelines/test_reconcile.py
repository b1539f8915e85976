from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.pipelines.reconcile import GRACE, REPAIRS, Reconciler, mark_all_stale
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors

NOW = datetime.now(UTC)


@pytest.fixture
def database(settings: Settings) -> Iterator[Engine]:
    made = connect(settings.database_url)
    yield made
    made.dispose()


@pytest.fixture
def queue(redis_url: str) -> RefreshQueue:
    return RefreshQueue.connect(redis_url)


def click(database: Engine, user_ids: Sequence[int]) -> None:
    clicks = [
        Behavior(
            user_id=user,
            domain=Domain.AD,
            action=Action.CLICK,
            item_id=1,
            occurred_at=NOW - timedelta(minutes=1, seconds=user),
        )
        for user in user_ids
    ]
    with transaction(database) as connection:
        append_behaviors(connection, clicks, arrived_at=NOW)


def drained(queue: RefreshQueue) -> set[int]:
    claims = queue.claim(100, lease_s=60)
    queue.complete(claims)
    return {claim.user_id for claim in claims}


def test_a_stale_user_whom_the_queue_lost_is_marked_and_counted(database: Engine, queue: RefreshQueue) -> None:
    click(database, [1, 2, 3])
    before = REPAIRS._value.get()
    reconciler = Reconciler(database, queue)
    later = NOW + GRACE
    assert reconciler.round(now=later) == 3
    assert reconciler.round(now=later) == 0  # they wait
    assert REPAIRS._value.get() == before + 3
    assert drained(queue) == {1, 2, 3}


def test_who_waits_is_claimed_or_dead_is_left_alone(database: Engine, queue: RefreshQueue) -> None:
    click(database, [1, 2, 3, 4])
    queue.mark([1])
    for _ in range(3):
        queue.fail(queue.claim(1, lease_s=60))
    assert queue.dead() == [1]
    queue.mark([2])
    queue.claim(1, lease_s=60)
    queue.mark([3])
    assert queue.missing([1, 2, 3, 4]) == [4]
    assert Reconciler(database, queue).round(now=NOW + GRACE) == 1
    assert (queue.depth(), queue.claimed(), queue.dead()) == (2, 1, [1])


def test_who_changed_just_now_is_left_to_the_writer_of_the_behavior(database: Engine, queue: RefreshQueue) -> None:
    click(database, [1])
    assert Reconciler(database, queue).round(now=NOW) == 0
    assert Reconciler(database, queue).round(now=NOW + GRACE) == 1


def test_rounds_go_through_all_stale_users_page_by_page(database: Engine, queue: RefreshQueue) -> None:
    click(database, range(1, 8))
    reconciler, later = Reconciler(database, queue, page=3), NOW + GRACE
    assert [reconciler.round(now=later) for _ in range(4)] == [3, 3, 1, 0]
    assert drained(queue) == set(range(1, 8))
    assert sum(reconciler.round(now=later) for _ in range(3)) == 7  # the queue lost them all, again


def test_all_stale_users_are_marked_at_once_after_a_wipe(database: Engine, queue: RefreshQueue) -> None:
    click(database, range(1, 8))
    assert mark_all_stale(database, queue, now=NOW) == 7
    assert mark_all_stale(database, queue, now=NOW) == 0


def test_stale_users_are_found_by_an_index_and_not_among_all_users(database: Engine) -> None:
    with transaction(database) as connection:
        connection.execute(
            text(
                "INSERT INTO user_state (user_id, newest_behavior_at, behavior_sequence, listed_sequence, listed_at) "
                "SELECT id, now(), 1, CASE WHEN id % 1000 = 0 THEN 0 ELSE 1 END, now() "
                "FROM generate_series(1, 20000) id"
            )
        )
        connection.execute(text("ANALYZE user_state"))
        plan = "\n".join(
            connection.scalars(
                text(
                    "EXPLAIN SELECT user_id FROM user_state WHERE behavior_sequence > listed_sequence "
                    "AND newest_behavior_at <= now() AND changed_at <= now() "
                    "ORDER BY newest_behavior_at, user_id LIMIT 50"
                )
            )
        )
    assert "ix_user_state_unlisted" in plan
