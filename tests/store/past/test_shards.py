"""Shards of a backfill on a real PostgreSQL: each is taken by one, and what a dead process had is taken again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine

from leadre.store.past import shards
from leadre.store.past.shards import SHARD_USERS, Waiting
from leadre.store.records.database import connect, transaction
from leadre.store.records.partitions import drop_months_before, ensure_months
from leadre.store.records.tables import retrieval_log
from leadre.store.release.records import record_index, record_release

AT = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = [AT + timedelta(days=n) for n in range(2)]
USERS = np.arange(SHARD_USERS + 5)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """Two releases of one index, and the month of their lists."""
    engine = connect(database_url)
    with transaction(engine) as connection:
        record_index(connection, "i1", uri="", recipe={}, quality={})
        for name in ("r1", "r2"):
            record_release(connection, name, index_version="i1", uri="", recipe={}, metrics={})
        ensure_months(connection, "retrieval_log", DAYS)
    try:
        yield engine
    finally:
        engine.dispose()


def planned(database: Engine, *instants: datetime, users: np.ndarray = USERS, release: str = "r1") -> Waiting:
    with transaction(database) as connection:
        return shards.plan(connection, [(at, release) for at in instants], user_ids=users)


def work_off(database: Engine) -> list[tuple[datetime, int]]:
    done = []
    while True:
        with shards.taken(database) as shard:
            if shard is None:
                return done
            with transaction(database) as connection:
                shards.finish(connection, shard)
            done.append((shard.event_at, len(shard.user_ids)))


def test_shards_are_worked_off_oldest_instant_first_and_once(database: Engine) -> None:
    assert planned(database, *DAYS) == Waiting(shards=4, lists=2 * len(USERS), failed=0, problem=None)
    done = work_off(database)
    assert [at for at, _ in done] == [DAYS[0]] * 2 + [DAYS[1]] * 2
    assert sum(users for _, users in done) == 2 * len(USERS)
    assert planned(database, *DAYS).shards == 0
    assert planned(database, *DAYS, release="r2").shards == 4


def test_two_processes_never_have_one_shard_and_a_dead_one_gives_it_back(database: Engine) -> None:
    planned(database, DAYS[0])
    with shards.taken(database) as one, shards.taken(database) as other, shards.taken(database) as none:
        assert none is None
        assert one is not None
        assert other is not None
        assert set(one.user_ids) | set(other.user_ids) == set(USERS.tolist())
    with shards.taken(database) as again:
        assert again == one


def test_a_shard_that_fails_is_not_taken_until_it_is_planned_again(database: Engine) -> None:
    planned(database, DAYS[0], users=USERS[:3])
    with shards.taken(database) as shard, transaction(database) as connection:
        assert shard is not None
        shards.fail(connection, shard, problem="ArtifactIncomplete: gone")
        assert shards.waiting(connection) == Waiting(shards=1, lists=3, failed=1, problem="ArtifactIncomplete: gone")
    with shards.taken(database) as none:
        assert none is None
    assert planned(database, DAYS[0], users=USERS[:3]).failed == 0


def test_a_new_plan_replaces_what_an_earlier_one_left(database: Engine) -> None:
    planned(database, *DAYS)
    assert planned(database, DAYS[1], users=USERS[:7]) == Waiting(shards=1, lists=7, failed=0, problem=None)


def test_lists_dropped_with_their_month_are_made_again(database: Engine) -> None:
    planned(database, DAYS[0])
    work_off(database)
    with transaction(database) as connection:
        assert drop_months_before(connection, "retrieval_log", AT + timedelta(days=40)) == ["retrieval_log_2026_03"]
    assert planned(database, DAYS[0]).shards == 2


def test_users_who_have_a_list_are_left_out(database: Engine) -> None:
    planned(database, DAYS[0], users=np.array([3, 1, 2]))
    with shards.taken(database) as shard, transaction(database) as connection:
        assert shard is not None
        for user_id, release in ((2, "r1"), (3, "r2")):
            row = {"user_id": user_id, "event_at": AT, "release": release, "index_version": "i1"}
            connection.execute(retrieval_log.insert(), {**row, "retrieved_ad_ids": [], "record": b""})
        assert shards.without_list(connection, shard) == [1, 3]
