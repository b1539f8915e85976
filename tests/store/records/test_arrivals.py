"""Behaviors on their way in: what a batch leaves out, and what a request that waits is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.errors import Unavailable
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors, append_behaviors_of_free_users, upsert_behaviors
from leadre.store.records.request_path import Stale, store_free, store_now

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect(database_url, statement_timeout_s=20, lock_timeout_s=0.2)
    yield made
    made.dispose()


def click(user_id: int, item_id: int = 7, *, action: Action = Action.CLICK) -> Behavior:
    return Behavior(user_id=user_id, domain=Domain.AD, action=action, item_id=item_id, occurred_at=NOW)


@contextmanager
def importing(engine: Engine, *users: int) -> Iterator[None]:
    """An import of these users that is not at its end yet."""
    with transaction(engine) as connection:
        upsert_behaviors(connection, [click(user, 99) for user in users], arrived_at=NOW)
        yield


def stored(connection: Connection) -> list[tuple[int, int]]:
    rows = connection.execute(text("SELECT user_id, item_id FROM behaviors ORDER BY 1, 2"))
    return [(user, item) for user, item in rows]


def test_whom_an_import_holds_is_left_out_and_the_others_are_written(engine: Engine) -> None:
    with transaction(engine) as connection:
        append_behaviors(connection, [click(1, 1), click(2, 1), click(3, 1)], arrived_at=NOW)
    with importing(engine, 2), transaction(engine) as connection:
        new, busy = append_behaviors_of_free_users(
            connection, [click(user, 5) for user in (3, 2, 1, 2, 4)], arrived_at=NOW
        )
        assert (new, busy) == (3, {2})
    with transaction(engine) as connection:
        assert append_behaviors_of_free_users(connection, [click(2, 5)], arrived_at=NOW) == (1, frozenset())
        assert stored(connection) == [(1, 1), (1, 5), (2, 1), (2, 5), (2, 99), (3, 1), (3, 5), (4, 5)]
        counts = connection.execute(text("SELECT user_id, written, behavior_sequence FROM user_state ORDER BY 1"))
        assert [tuple(row) for row in counts] == [(1, 2, 2), (2, 3, 3), (3, 2, 2), (4, 1, 1)]


def test_new_users_whom_an_import_is_inserting_are_found_among_others(engine: Engine) -> None:
    held = (3, 40, 41, 77)
    rows = [click(user) for user in range(100)]
    with importing(engine, *held), transaction(engine) as connection:
        new, busy = append_behaviors_of_free_users(connection, rows, arrived_at=NOW)
        assert busy >= set(held)  # a machine at its limits may take others for held
        assert new == 100 - len(busy)
        assert connection.scalar(text("SHOW lock_timeout")) == "200ms"
    with transaction(engine) as connection:
        assert append_behaviors_of_free_users(connection, rows, arrived_at=NOW) == (len(busy), frozenset())


def test_an_import_of_thousands_of_new_users_holds_a_batch_up_for_a_bounded_time(engine: Engine) -> None:
    with transaction(engine) as connection:
        append_behaviors(connection, [click(user) for user in range(50)], arrived_at=NOW)
    with importing(engine, *range(1000, 3000)), transaction(engine) as connection:
        rows = [click(user, 8) for user in [*range(50), *range(1000, 3000)]]
        new, busy = append_behaviors_of_free_users(connection, rows, arrived_at=NOW)
        assert (new, busy) == (50, set(range(1000, 3000)))


def test_a_batch_says_who_wants_a_refresh_and_what_the_catalog_lacks(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(
            text("INSERT INTO users (user_id, source_id, arpu_group, event_at) VALUES (1, '1', 24, :now)"), {"now": NOW}
        )
    rows = [click(1), click(2), click(3, action=Action.IMPRESSION), click(4)]
    with transaction(engine) as connection:
        append_behaviors(connection, [click(4)], arrived_at=NOW)
        connection.execute(text("UPDATE user_state SET listed_sequence = 1, listed_at = now() WHERE user_id = 4"))
    with importing(engine, 2), transaction(engine) as connection:
        arrived = store_free(connection, rows, arrived_at=NOW)
    assert arrived.stale == (Stale(user_id=1, group=24, never_listed=True),)  # 4 is listed with all that was reported
    assert (arrived.new, arrived.busy, arrived.unknown) == (2, {2}, {Domain.AD: 3, Domain.CONTENT: 0})
    with transaction(engine) as connection:
        again = store_free(connection, [*rows, click(4, 8)], arrived_at=NOW + timedelta(days=1))
    assert again.new == 2
    assert [(stale.user_id, stale.never_listed) for stale in again.stale] == [(1, True), (2, True), (4, False)]


def test_a_request_that_waits_is_told_when_postgresql_is_late(engine: Engine, database_url: str) -> None:
    assert store_now(engine, [click(1)], arrived_at=NOW).new == 1
    assert store_now(engine, [click(1)], arrived_at=NOW).new == 0
    impatient = connect(database_url, statement_timeout_s=0.1, lock_timeout_s=0)
    with importing(engine, 1):
        with pytest.raises(Unavailable, match="lock timeout"):
            store_now(engine, [click(1, 8)], arrived_at=NOW)
        with pytest.raises(Unavailable, match="not write the behaviors in time"):
            store_now(impatient, [click(1, 8)], arrived_at=NOW)
    assert store_now(impatient, [click(1, 8)], arrived_at=NOW).new == 1
    impatient.dispose()


def test_a_request_that_finds_all_connections_taken_is_told_so(database_url: str) -> None:
    small = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    with transaction(small), pytest.raises(Unavailable, match="all connections"):
        store_now(small, [click(1)], arrived_at=NOW)
    small.dispose()
