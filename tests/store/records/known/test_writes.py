"""From when a row is known, and what `user_state` says after every way of writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.store.records.events import append_behaviors, upsert_behaviors, upsert_impressions
from leadre.store.records.known.staging import staged_behaviors, staged_impressions
from leadre.store.records.known.writes import EventCounts, write_import
from leadre.store.records.summaries import settle_everybody
from leadre.store.records.tables import behaviors, impressions, user_state

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)


def did(ago: timedelta, *, user_id: int = 7, action: Action = Action.CLICK, item_id: int = 1) -> Behavior:
    return Behavior(user_id=user_id, domain=Domain.AD, action=action, item_id=item_id, occurred_at=NOW - ago)


def shown(ago: timedelta, *, clicked: bool = False, ecpm: float = 1.0) -> Impression:
    return Impression(user_id=7, ad_id=1, occurred_at=NOW - ago, ecpm=ecpm, clicked=clicked)


def known(connection: Connection, table: Any = behaviors) -> list[datetime]:
    return list(connection.scalars(select(table.c.known_at).order_by(table.c.occurred_at)))


def state(connection: Connection, user_id: int = 7) -> tuple[Any, ...]:
    columns = user_state.c
    query = select(columns.written, columns.changed_at, columns.newest_behavior_at).where(columns.user_id == user_id)
    return tuple(connection.execute(query).one())


def summarized(connection: Connection, until: datetime, *, everybody: bool) -> None:
    if everybody:
        settle_everybody(connection, now=until)
    else:
        connection.execute(user_state.insert().values(user_id=7, summarized_until=until))


@pytest.mark.parametrize("everybody", [False, True], ids=["the user", "everybody"])
@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, [NOW, NOW, NOW + HOUR]),
        (NOW - DAY, [NOW, NOW, NOW + HOUR]),
        (NOW, [NOW + TICK, NOW + TICK, NOW + HOUR]),
        (NOW + 2 * HOUR, [NOW + 2 * HOUR + TICK] * 3),
    ],
)
def test_a_live_behavior_is_known_from_its_arrival_its_time_or_after_what_is_settled(
    connection: Connection, until: datetime | None, expected: list[datetime], *, everybody: bool
) -> None:
    if until:
        summarized(connection, until, everybody=everybody)
    append_behaviors(connection, [did(3 * DAY), did(HOUR), did(-HOUR)], arrived_at=NOW)
    assert known(connection) == expected


@pytest.mark.parametrize("everybody", [False, True], ids=["the user", "everybody"])
@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (None, [NOW - HOUR, NOW - HOUR, NOW + HOUR]),
        (NOW - DAY, [NOW - HOUR, NOW - HOUR, NOW + HOUR]),
        (NOW - HOUR, [NOW, NOW, NOW + HOUR]),
        (NOW + 2 * HOUR, [NOW + 2 * HOUR + TICK] * 3),
    ],
)
def test_an_imported_behavior_is_known_from_the_newest_of_its_import_or_from_then_on(
    connection: Connection, until: datetime | None, expected: list[datetime], *, everybody: bool
) -> None:
    if until:
        summarized(connection, until, everybody=everybody)
    rows = [did(3 * DAY), did(HOUR), did(-HOUR), did(timedelta(), user_id=8)]
    upsert_behaviors(connection, rows[:3], arrived_at=NOW)
    assert known(connection) == expected


def test_an_import_has_one_instant_a_user_over_behaviors_and_impressions(connection: Connection) -> None:
    with (
        staged_behaviors(connection, [did(2 * DAY), did(DAY, user_id=8)]) as did_rows,
        staged_impressions(connection, [shown(DAY), shown(3 * DAY)]) as shown_rows,
    ):
        counts = write_import(connection, behaviors=did_rows, impressions=shown_rows, arrived_at=NOW)
    assert counts == EventCounts(behaviors=2, impressions=2)
    assert known(connection) == [NOW - DAY, NOW - DAY]
    assert known(connection, impressions) == [NOW - DAY, NOW - DAY]
    assert state(connection) == (3, NOW, NOW - 2 * DAY)
    assert state(connection, 8) == (1, NOW, NOW - DAY)


def write(connection: Connection, rows: Sequence[Behavior], *, live: bool, arrived_at: datetime) -> int:
    return (append_behaviors if live else upsert_behaviors)(connection, rows, arrived_at=arrived_at)


@pytest.mark.parametrize("live", [True, False], ids=["live", "imported"])
def test_what_is_written_again_changes_nothing(connection: Connection, *, live: bool) -> None:
    rows = [did(HOUR), did(2 * HOUR), did(2 * HOUR), did(timedelta(), action=Action.SKIP)]
    assert write(connection, rows, live=live, arrived_at=NOW) == 3
    before = connection.execute(select(user_state)).all()
    assert state(connection) == (3, NOW, NOW - HOUR)
    known_before = known(connection)
    assert write(connection, rows, live=live, arrived_at=NOW + HOUR) == 0
    assert connection.execute(select(user_state)).all() == before
    assert write(connection, [*rows, did(3 * HOUR)], live=live, arrived_at=NOW + 2 * HOUR) == 1
    assert state(connection) == (4, NOW + 2 * HOUR, NOW - HOUR)
    assert known(connection)[1:] == known_before


def test_a_state_never_goes_back(connection: Connection) -> None:
    append_behaviors(connection, [did(HOUR)], arrived_at=NOW)
    append_behaviors(connection, [did(DAY)], arrived_at=NOW - HOUR)
    assert state(connection) == (2, NOW, NOW - HOUR)


def test_an_impressions_click_is_known_from_when_it_was_told(connection: Connection) -> None:
    def row() -> tuple[Any, ...]:
        columns = impressions.c
        return tuple(connection.execute(select(columns.ecpm, columns.known_at, columns.outcome_at)).one())

    settle_everybody(connection, now=NOW - DAY)
    first = shown(2 * DAY)
    told = [first, replace(first, ecpm=2.0), replace(first, clicked=True), replace(first, converted=True), first]
    rows = []
    for hours, impression in enumerate(told):
        assert upsert_impressions(connection, [impression], arrived_at=NOW + hours * HOUR) == 1
        assert upsert_impressions(connection, [impression], arrived_at=NOW + 9 * HOUR) == 0
        rows.append(row())
    clicked = NOW + 2 * HOUR
    assert rows == [
        (1.0, NOW, None),
        (2.0, NOW, None),
        (1.0, NOW, clicked),
        (1.0, NOW, clicked),
        (1.0, NOW + 4 * HOUR, None),
    ]
    assert state(connection)[0] == 5


def test_an_impression_that_was_clicked_when_it_came_never_was_a_dislike(connection: Connection) -> None:
    upsert_impressions(connection, [shown(DAY, clicked=True), shown(HOUR)], arrived_at=NOW)
    assert connection.execute(text("SELECT outcome_at FROM impressions")).all() == [(None,), (None,)]


def test_users_are_locked_in_one_order_whatever_order_their_rows_come_in(connection: Connection) -> None:
    rows = [did(HOUR, user_id=user) for user in (9, 3, 7, 1)]
    append_behaviors(connection, rows, arrived_at=NOW)
    query = text("SELECT user_id FROM user_state ORDER BY ctid")  # as they were written
    assert connection.scalars(query).all() == [1, 3, 7, 9]
