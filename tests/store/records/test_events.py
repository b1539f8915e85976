from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain, Impression
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.events import (
    ACTIONS,
    DOMAINS,
    append_behaviors,
    newest_positive_behavior,
    read_sequences,
    stale_page,
    upsert_behaviors,
    upsert_impressions,
)
from leadre.store.records.tables import behaviors, impressions, user_state

NOW = datetime(2025, 6, 1, tzinfo=UTC)
BEHAVIORS = st.lists(
    st.builds(
        Behavior,
        user_id=st.integers(1, 3),
        domain=st.sampled_from(Domain),
        action=st.sampled_from(Action),
        item_id=st.integers(1, 4),
        occurred_at=st.integers(0, 3 * 10**6).map(lambda microseconds: NOW + timedelta(microseconds=microseconds)),
        ordinal=st.integers(0, 2),
    ),
    max_size=30,
)


def click(user_id: int, item_id: int, *, hours: float, action: Action = Action.CLICK, ordinal: int = 0) -> Behavior:
    return Behavior(
        user_id=user_id,
        domain=Domain.CONTENT if action in (Action.WATCH, Action.SKIP) else Domain.AD,
        action=action,
        item_id=item_id,
        occurred_at=NOW - timedelta(hours=hours),
        ordinal=ordinal,
    )


def test_writing_twice_changes_nothing(connection: Connection) -> None:
    rows = [click(1, 5, hours=2), click(1, 5, hours=2, ordinal=1), click(2, 5, hours=2)]
    assert upsert_behaviors(connection, rows, arrived_at=NOW) == 3
    assert upsert_behaviors(connection, reversed(rows), arrived_at=NOW) == 0
    append_behaviors(connection, [*rows, click(2, 6, hours=1)], arrived_at=NOW)
    append_behaviors(connection, [], arrived_at=NOW)
    assert connection.scalar(select(func.count()).select_from(behaviors)) == 4


def test_the_id_of_a_behavior_is_the_instant_not_its_time_zone(connection: Connection) -> None:
    row = click(1, 5, hours=2)
    upsert_behaviors(connection, [row], arrived_at=NOW)
    elsewhere = row.occurred_at.astimezone(timezone(timedelta(hours=8)))
    assert upsert_behaviors(connection, [replace(row, occurred_at=elsewhere)], arrived_at=NOW) == 0


def test_an_impression_takes_its_later_outcome(connection: Connection) -> None:
    shown = Impression(user_id=1, ad_id=5, occurred_at=NOW, ecpm=12.5)
    assert upsert_impressions(connection, [shown], arrived_at=NOW) == 1
    assert upsert_impressions(connection, [replace(shown, clicked=True)], arrived_at=NOW) == 1
    assert upsert_impressions(connection, [replace(shown, clicked=True)], arrived_at=NOW) == 0
    assert connection.execute(select(impressions.c.ecpm, impressions.c.clicked)).one() == (12.5, True)


def test_unknown_users_and_items_are_refused_where_asked(connection: Connection) -> None:
    upsert_users(connection, [Profile(user_id=1)], event_at=NOW)
    blank = {
        "ad_type": "",
        "first_category": "",
        "second_category": "",
        "attributes": (),
        "advertiser_id": 0,
        "bid": 0.0,
    }
    upsert_ads(connection, [Ad(ad_id=5, source_id="5", name="n", created_at=NOW, **blank)])
    upsert_content_items(connection, [ContentItem(content_id=6, source_id="6", title="t", category="")])
    known = [click(1, 5, hours=1), click(1, 6, hours=1, action=Action.WATCH)]
    upsert_behaviors(connection, known, unknown="refuse", arrived_at=NOW)
    for unknown, problem in [
        (click(2, 5, hours=1), "row 3, column 'user_id': 2 is not in users"),
        (click(1, 6, hours=1), "row 3, column 'item_id': 6 is not in ads"),
        (click(1, 5, hours=1, action=Action.WATCH), "row 3, column 'item_id': 5 is not in content_items"),
    ]:
        with pytest.raises(InvalidInput, match=problem):
            upsert_behaviors(connection, [*known, unknown], unknown="refuse", arrived_at=NOW)
    with pytest.raises(InvalidInput, match="row 1, column 'ad_id': 6 is not in ads"):
        upsert_impressions(
            connection, [Impression(user_id=1, ad_id=6, occurred_at=NOW, ecpm=1.0)], unknown="refuse", arrived_at=NOW
        )


@given(
    rows=BEHAVIORS,
    which=st.sampled_from(["positive", "all"]),
    domains=st.sampled_from([DOMAINS, DOMAINS[:1], DOMAINS[1:]]),
)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_sequences_are_every_users_behaviors_in_order(
    connection: Connection, rows: list[Behavior], which: str, domains: tuple[Domain, ...]
) -> None:
    connection.execute(behaviors.delete())
    upsert_behaviors(connection, rows, arrived_at=NOW)
    read = read_sequences(connection, which=which, domains=domains)  # type: ignore[arg-type]

    wanted = {row for row in rows if row.domain in domains and (which == "all" or row.action in POSITIVE)}
    assert read.users.tolist() == sorted({row.user_id for row in wanted})
    assert read.offsets.tolist()[0] == 0
    assert read.offsets[-1] == len(read.item_ids) == len(wanted)
    for number, user_id in enumerate(read.users):
        part = slice(read.offsets[number], read.offsets[number + 1])
        keys = list(zip(read.occurred_at_s[part], read.ordinals[part], strict=True))
        assert keys == sorted(keys)
        found = {
            Behavior(
                user_id=int(user_id),
                domain=DOMAINS[domain],
                action=ACTIONS[action],
                item_id=int(item_id),
                occurred_at=datetime.fromtimestamp(seconds, UTC),
                ordinal=int(ordinal),
            )
            for domain, action, item_id, (seconds, ordinal) in zip(
                read.domains[part], read.actions[part], read.item_ids[part], keys, strict=True
            )
        }
        assert found == {row for row in wanted if row.user_id == user_id}


def test_sequence_arrays_have_their_types_and_can_be_written(connection: Connection) -> None:
    upsert_behaviors(connection, [click(1, 2**62, hours=1), click(3, 2, hours=1)], arrived_at=NOW)
    read = read_sequences(connection)
    names = ["users", "offsets", "item_ids", "domains", "actions", "occurred_at_s", "ordinals"]
    types = [getattr(read, name).dtype.name for name in names]
    assert types == ["int64", "int64", "int64", "uint8", "uint8", "float64", "int64"]
    assert read.item_ids.flags.writeable
    assert read.item_ids.tolist() == [2**62, 2]


def test_the_newest_positive_behavior_is_neither_a_skip_nor_an_impression(connection: Connection) -> None:
    rows = [
        click(1, 5, hours=9),
        click(1, 6, hours=7),
        click(1, 6, hours=2, action=Action.SKIP),
        click(1, 6, hours=1, action=Action.IMPRESSION),
        click(2, 6, hours=1, action=Action.SKIP),
    ]
    upsert_behaviors(connection, rows, arrived_at=NOW)
    assert newest_positive_behavior(connection, [1, 2, 3]) == {1: NOW - timedelta(hours=7)}


def test_stale_are_those_whose_list_rests_on_fewer_behaviors_than_they_have(connection: Connection) -> None:
    hour = timedelta(hours=1)
    behaved = {user: NOW - timedelta(hours=user) for user in range(1, 7)} | {7: NOW + hour, 8: None}
    known, listed = {1: 2, 2: 3, 3: 3, 4: 1, 5: 1, 6: 1, 7: 1}, {2: 3, 3: 2, 4: 1, 6: 1}
    rows = [
        {
            "user_id": user,
            "newest_behavior_at": behaved_at,
            "changed_at": behaved_at or NOW,
            "listed_at": NOW if user in listed else None,
            "behavior_sequence": known.get(user, 0),
            "listed_sequence": listed.get(user, 0),
        }
        for user, behaved_at in behaved.items()
    ]
    connection.execute(user_state.insert(), rows)

    def stale(**how: Any) -> list[int]:
        return [user.user_id for user in stale_page(connection, **{"now": NOW, "limit": 10, **how})]

    assert stale() == [5, 3, 1]
    assert stale(limit=1) == [5]
    assert stale(after=stale_page(connection, now=NOW, limit=1)[0]) == [3, 1]
    assert stale(now=NOW + 2 * hour) == [5, 3, 1, 7]
    assert stale(settled=NOW - 2 * hour) == [5, 3]
    assert [user.listed for user in stale_page(connection, now=NOW, limit=10)] == [False, True, False]


def test_the_stale_are_found_by_an_index_that_holds_them_alone(connection: Connection) -> None:
    connection.exec_driver_sql(
        "INSERT INTO user_state (user_id, newest_behavior_at, behavior_sequence, listed_at, listed_sequence) "
        "SELECT n, now(), 1, now(), CASE WHEN mod(n, 1000) = 0 THEN 0 ELSE 1 END FROM generate_series(1, 20000) n"
    )
    connection.exec_driver_sql("ANALYZE user_state")
    scanned = "SELECT sum(idx_scan) FROM pg_stat_xact_user_tables WHERE relname = 'user_state'"
    before = connection.exec_driver_sql(scanned).scalar_one()
    assert len(stale_page(connection, now=datetime.now(UTC) + timedelta(days=1), limit=100)) == 20
    assert connection.exec_driver_sql(scanned).scalar_one() == before + 1
