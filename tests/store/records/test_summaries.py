from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain, Impression
from leadre.domain.users import Profile
from leadre.pipelines.summarize import summarize
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.events import upsert_behaviors, upsert_impressions
from leadre.store.records.summaries import SummaryCounts, write_summaries
from leadre.store.records.tables import behavior_sequences, behaviors, impressions, interest_summaries, users

NOW = datetime(2025, 6, 1, tzinfo=UTC)
AD_CATEGORIES = {1: ("Beauty", "Skin Care"), 2: ("Beauty", ""), 3: ("Travel", "Hotels"), 4: ("", "")}
CONTENT = {11: ("Night routine", "Skin Care"), 12: ("", "Hotels"), 13: ("Untold", "")}


@pytest.fixture
def catalog(connection: Connection) -> Connection:
    blank: dict[str, Any] = {"ad_type": "", "attributes": (), "advertiser_id": 0, "bid": 0.0, "created_at": NOW}
    upsert_ads(
        connection,
        [
            Ad(ad_id=n, source_id=str(n), name=f"ad {n}", first_category=first, second_category=second, **blank)
            for n, (first, second) in AD_CATEGORIES.items()
        ],
    )
    upsert_content_items(
        connection,
        [ContentItem(content_id=n, source_id=str(n), title=t, category=c) for n, (t, c) in CONTENT.items()],
    )
    return connection


def did(user_id: int, item_id: int, *, days: float, action: Action = Action.CLICK, ordinal: int = 0) -> Behavior:
    return Behavior(
        user_id=user_id,
        domain=Domain.CONTENT if item_id > 10 else Domain.AD,
        action=action,
        item_id=item_id,
        occurred_at=NOW - timedelta(days=days),
        ordinal=ordinal,
    )


def summaries(connection: Connection) -> dict[int, Any]:
    return {row.user_id: row for row in connection.execute(select(interest_summaries).order_by("event_at"))}


def sequences(connection: Connection) -> dict[tuple[int, str], Any]:
    return {
        (row.user_id, row.domain): row for row in connection.execute(select(behavior_sequences).order_by("event_at"))
    }


def test_liked_categories_count_both_domains_most_frequent_first(catalog: Connection) -> None:
    liked = [did(7, 1, days=5), did(7, 11, days=4, action=Action.WATCH), did(7, 3, days=3), did(7, 2, days=2)]
    upsert_behaviors(catalog, [*liked, did(7, 12, days=9, action=Action.SEARCH), did(7, 1, days=8)])
    write_summaries(catalog, now=NOW)
    row = summaries(catalog)[7]
    assert (row.categories, row.counts) == (["Skin Care", "Hotels", "Beauty"], [3, 2, 1])
    assert (row.disliked_categories, row.disliked_counts) == ([], [])
    assert row.event_at == NOW - timedelta(days=2)


def test_disliked_are_skips_and_what_was_shown_in_vain(catalog: Connection) -> None:
    upsert_behaviors(catalog, [did(7, 11, days=6, action=Action.SKIP), did(7, 3, days=2, action=Action.IMPRESSION)])
    shown = {"user_id": 7, "ecpm": 2.0}
    upsert_impressions(
        catalog,
        [
            Impression(ad_id=1, occurred_at=NOW - timedelta(days=5), **shown),
            Impression(ad_id=3, occurred_at=NOW - timedelta(days=4), **shown),
            Impression(ad_id=3, occurred_at=NOW - timedelta(days=3), clicked=True, **shown),
        ],
    )
    write_summaries(catalog, now=NOW)
    row = summaries(catalog)[7]
    assert (row.categories, row.counts) == ([], [])
    assert (row.disliked_categories, row.disliked_counts) == (["Skin Care", "Hotels"], [2, 1])
    assert row.event_at == NOW - timedelta(days=4)


def test_sequences_are_positive_oldest_first_and_parallel(catalog: Connection) -> None:
    rows = [
        did(7, 3, days=1, action=Action.CONVERSION),
        did(7, 1, days=2, ordinal=4),
        did(7, 2, days=2, ordinal=3),
        did(7, 12, days=3, action=Action.WATCH),
        did(7, 11, days=0.5, action=Action.SKIP),
        did(7, 99, days=4, action=Action.WATCH),
        did(7, 1, days=91),
    ]
    upsert_behaviors(catalog, rows)
    write_summaries(catalog, now=NOW)
    found = sequences(catalog)
    ad, content = found[7, "ad"], found[7, "content"]
    assert (ad.item_ids, ad.titles, ad.ordinals) == ([2, 1, 3], ["ad 2", "ad 1", "ad 3"], [3, 4, 0])
    assert ad.actions == ["click", "click", "conversion"]
    assert ad.occurred_at_s == [(NOW - timedelta(days=days)).timestamp() for days in (2, 2, 1)]
    assert ad.event_at == NOW - timedelta(days=1)
    assert (content.item_ids, content.titles) == ([99, 12], ["", "Hotels"])
    assert content.event_at == NOW - timedelta(days=3)


def test_users_without_behavior_in_the_window_get_no_row(catalog: Connection) -> None:
    upsert_users(catalog, [Profile(user_id=7), Profile(user_id=8)], event_at=NOW)
    upsert_behaviors(catalog, [did(7, 1, days=90.5), did(8, 1, days=-1)])
    assert write_summaries(catalog, now=NOW) == SummaryCounts(interest_summaries=0, behavior_sequences=0, users=2)


def test_top_and_longest_bound_the_lists(catalog: Connection) -> None:
    upsert_behaviors(catalog, [did(7, item, days=days) for item, days in [(1, 4), (1, 3), (2, 2), (3, 1)]])
    write_summaries(catalog, now=NOW, top=2, longest=3)
    assert summaries(catalog)[7].categories == ["Skin Care", "Hotels"]
    assert sequences(catalog)[7, "ad"].item_ids == [1, 2, 3]


def test_running_again_changes_nothing_and_a_late_behavior_is_taken_in(catalog: Connection) -> None:
    upsert_behaviors(catalog, [did(7, 1, days=1)])
    assert write_summaries(catalog, now=NOW).behavior_sequences == 1
    assert write_summaries(catalog, now=NOW) == SummaryCounts(interest_summaries=0, behavior_sequences=0, users=0)
    upsert_behaviors(catalog, [did(7, 3, days=2)])
    write_summaries(catalog, now=NOW)
    assert len(catalog.execute(select(behavior_sequences)).all()) == 1
    assert sequences(catalog)[7, "ad"].item_ids == [3, 1]


def test_only_the_users_asked_for_are_written(catalog: Connection) -> None:
    upsert_users(catalog, [Profile(user_id=7)], event_at=NOW)
    upsert_behaviors(catalog, [did(7, 1, days=1), did(8, 1, days=1), did(9, 1, days=1)])
    counts = write_summaries(catalog, now=NOW, user_ids=[8, 9, 10])
    assert counts == SummaryCounts(interest_summaries=2, behavior_sequences=2, users=0)
    assert sorted(summaries(catalog)) == [8, 9]
    assert write_summaries(catalog, now=NOW, user_ids=[]).interest_summaries == 0


def test_users_fall_into_25_groups_by_arpu_and_equals_stay_together(catalog: Connection) -> None:
    earning = {user_id: float(user_id) for user_id in range(1, 51)}
    upsert_users(catalog, [Profile(user_id=u, arpu=arpu) for u, arpu in earning.items()], event_at=NOW)
    write_summaries(catalog, now=NOW)
    groups = dict(catalog.execute(select(users.c.user_id, users.c.arpu_group)).all())
    assert groups == {user_id: (user_id - 1) // 2 for user_id in earning}
    catalog.execute(users.update().where(users.c.user_id <= 40).values(arpu=0.0))
    write_summaries(catalog, now=NOW)
    groups = dict(catalog.execute(select(users.c.user_id, users.c.arpu_group)).all())
    assert {groups[user_id] for user_id in range(1, 41)} == {0}
    assert groups[50] == 24


@given(
    rows=st.lists(
        st.builds(
            did,
            st.integers(7, 8),
            st.sampled_from([*AD_CATEGORIES, *CONTENT]),
            days=st.sampled_from([-1.0, 0.0, 0.5, 3.0, 89.0, 90.0, 95.0]),
            action=st.sampled_from(Action),
        ),
        unique=True,
        max_size=25,
    )
)
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_sql_agrees_with_the_sentence_that_defines_it(catalog: Connection, rows: list[Behavior]) -> None:
    for table in (behaviors, impressions, interest_summaries, behavior_sequences):
        catalog.execute(table.delete())
    upsert_behaviors(catalog, rows)
    write_summaries(catalog, now=NOW)
    found = summaries(catalog)

    for user_id in (7, 8):
        window = [r for r in rows if r.user_id == user_id and NOW - timedelta(days=90) < r.occurred_at <= NOW]
        liked = [row for row in window if row.action in POSITIVE]
        counted = [row for row in window if row.action in POSITIVE or row.action is Action.SKIP]
        assert (user_id in found) == bool(counted)
        if counted:
            row = found[user_id]
            assert row.event_at == max(item.occurred_at for item in counted)
            assert dict(zip(row.categories, row.counts, strict=True)) == _tally(liked)
            skipped = [item for item in counted if item.action is Action.SKIP]
            assert dict(zip(row.disliked_categories, row.disliked_counts, strict=True)) == _tally(skipped)
            assert row.counts == sorted(row.counts, reverse=True)


def test_summarize_commits(database_url: str, connection: Connection) -> None:
    upsert_behaviors(connection, [did(7, 1, days=1)])
    connection.commit()
    assert summarize(database_url, now=NOW).behavior_sequences == 1
    assert sequences(connection)[7, "ad"].item_ids == [1]


def _tally(rows: list[Behavior]) -> dict[str, int]:
    def category(item_id: int) -> str:
        return CONTENT[item_id][1] if item_id > 10 else AD_CATEGORIES[item_id][1] or AD_CATEGORIES[item_id][0]

    return {name: count for name, count in Counter(category(row.item_id) for row in rows).items() if name}
