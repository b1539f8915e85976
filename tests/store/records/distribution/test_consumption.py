from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, insert

from leadre.cli import cli
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.store.records import events
from leadre.store.records.database import connect, transaction
from leadre.store.records.distribution.consumption import Consumption, read_consumption
from leadre.store.records.partitions import ensure_months
from leadre.store.records.tables import retrieval_log

DAY = datetime(2025, 6, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def consumed(connection: Connection) -> Consumption:
    return read_consumption(connection, since=DAY, until=DAY + timedelta(days=1), list_ttl=timedelta(days=7), popular=1)


def listed(connection: Connection, user_id: int, at: datetime, *ads: int) -> None:
    ensure_months(connection, "retrieval_log", [at])
    row = {
        "user_id": user_id,
        "event_at": at,
        "release": "r",
        "index_version": "i",
        "retrieved_ad_ids": list(ads),
        "record": b"",
    }
    connection.execute(insert(retrieval_log).values(row))


def shown(connection: Connection, user_id: int, ad_id: int, at: datetime) -> None:
    impression = Impression(
        user_id=user_id, ad_id=ad_id, occurred_at=at, ecpm=1.0, clicked=False, converted=False, simulated=True
    )
    events.upsert_impressions(connection, [impression], arrived_at=at)


def test_what_leadre_alone_brought_is_what_was_listed_then_and_not_popular(connection: Connection) -> None:
    clicks = [
        Behavior(user_id=user, domain=Domain.AD, action=Action.CLICK, item_id=5, occurred_at=DAY - 2 * HOUR)
        for user in (8, 9)
    ]
    events.append_behaviors(connection, clicks, arrived_at=DAY - HOUR)
    listed(connection, 1, DAY - 9 * timedelta(days=1), 3)
    listed(connection, 1, DAY + HOUR, 5, 6)
    listed(connection, 1, DAY + 3 * HOUR, 7)
    shown(connection, 1, 3, DAY + 0.5 * HOUR)  # its list is too old by now
    shown(connection, 1, 6, DAY + 2 * HOUR)  # only in the list
    shown(connection, 1, 5, DAY + 2 * HOUR)  # in the list, and popular
    shown(connection, 1, 6, DAY + 4 * HOUR)  # the newer list does not hold it
    shown(connection, 2, 5, DAY + 2 * HOUR)  # without a list, popular
    shown(connection, 2, 6, DAY + 30 * HOUR)  # another day
    found = consumed(connection)
    assert found == Consumption(shown=5, in_list=2, popular=2, only_list=1, only_popular=1)
    assert (found.leadre, found.popularity) == (0.2, 0.2)


def test_where_nothing_was_shown_nothing_was_consumed(connection: Connection) -> None:
    found = consumed(connection)
    assert (found.shown, found.leadre, found.popularity) == (0, 0.0, 0.0)


def test_the_command_prints_the_ratios(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADRE_DATABASE_URL", database_url)
    monkeypatch.setenv("LEADRE_REDIS_URL", "redis://localhost:1/0")
    database = connect(database_url)
    with transaction(database) as connection:
        listed(connection, 1, DAY, 6)
        shown(connection, 1, 6, DAY + HOUR)
    database.dispose()
    done = CliRunner().invoke(cli, ["consumption", "--from", "2025-06-10", "--to", "2025-06-11", "--json"])
    assert json.loads(done.output)["leadre_consumption"] == 1.0
