"""Months of the tables that grow with every refresh."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Connection, text

from leadre.store.records.database import connect, transaction
from leadre.store.records.partitions import PARTITIONED, drop_months_before, ensure_months, month_of, months_before
from leadre.store.records.tables import interest_summaries

LATE = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)


def write(connection: Connection, user_id: int, at: datetime) -> None:
    ensure_months(connection, "interest_summaries", [at])
    connection.execute(interest_summaries.insert().values(user_id=user_id, event_at=at, categories=[], counts=[]))


def test_a_row_goes_into_the_month_of_its_instant_in_utc(connection: Connection) -> None:
    write(connection, 1, LATE)
    write(connection, 2, LATE + timedelta(minutes=1))
    write(connection, 3, datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))))
    found = connection.execute(text("SELECT tableoid::regclass::text, user_id FROM interest_summaries ORDER BY 2"))
    assert [name.removeprefix("partitions.interest_summaries_") for name, _ in found] == [
        "2025_12",
        "2026_01",
        "2025_12",
    ]


@pytest.mark.parametrize("table", PARTITIONED)
def test_a_month_is_made_once(connection: Connection, table: str) -> None:
    for _ in range(2):
        ensure_months(connection, table, [LATE, LATE - timedelta(days=40)])
    assert months_before(connection, table, LATE + timedelta(days=1)) == [f"{table}_2025_11", f"{table}_2025_12"]


def test_two_writers_at_the_turn_of_a_month_both_succeed(database_url: str) -> None:
    def one(user_id: int) -> None:
        engine = connect(database_url)
        with transaction(engine) as connection:
            write(connection, user_id, LATE)
        engine.dispose()

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(one, range(4)))
    engine = connect(database_url)
    with transaction(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM interest_summaries")) == 4
    engine.dispose()


def test_dropping_takes_whole_months_and_leaves_the_one_that_holds_the_bound(connection: Connection) -> None:
    for number in range(4):
        write(connection, number, LATE - timedelta(days=31 * number))
    assert drop_months_before(connection, "interest_summaries", LATE - timedelta(days=31)) == [
        "interest_summaries_2025_09",
        "interest_summaries_2025_10",
    ]
    assert connection.scalars(text("SELECT user_id FROM interest_summaries ORDER BY 1")).all() == [0, 1]


def test_december_is_followed_by_january(connection: Connection) -> None:
    ensure_months(connection, "retrieval_log", [LATE])
    bound = connection.scalar(
        text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'retrieval_log_2025_12'")
    )
    assert "2026-01-01" in bound
    assert month_of(LATE) == datetime(2025, 12, 1, tzinfo=UTC)
