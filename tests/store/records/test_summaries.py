from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, Unavailable
from leadre.pipelines.summarize import summarize
from leadre.store.records import summaries as of_records
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors, upsert_behaviors, upsert_impressions
from leadre.store.records.known import instants
from leadre.store.records.known.given import Given, summarize_given
from leadre.store.records.summaries import SummaryCounts, write_summaries
from leadre.store.records.tables import behavior_sequences, interest_summaries, users
from leadre.store.release.records import promote, record_index, record_release

NOW = datetime(2025, 6, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AD_CATEGORIES = {1: ("Beauty", "Skin Care"), 2: ("Beauty", ""), 3: ("Travel", "Hotels"), 4: ("", "")}
SPUS = {1: "cream", 2: "soap", 3: "", 4: "cream", 11: "cream", 12: "inn", 13: ""}
CONTENT = {11: ("Night routine", "Skin Care"), 12: ("", "Hotels"), 13: ("Untold", "")}


@pytest.fixture
def catalog(connection: Connection) -> Connection:
    blank: dict[str, Any] = {"ad_type": "", "attributes": (), "advertiser_id": 0, "bid": 0.0, "created_at": NOW}
    upsert_ads(
        connection,
        [
            Ad(
                ad_id=n,
                source_id=str(n),
                name=f"ad {n}",
                first_category=first,
                second_category=second,
                spu=SPUS[n],
                **blank,
            )
            for n, (first, second) in AD_CATEGORIES.items()
        ],
    )
    upsert_content_items(
        connection,
        [
            ContentItem(content_id=n, source_id=str(n), title=t, category=c, spu=SPUS[n])
            for n, (t, c) in CONTENT.items()
        ],
    )
    return connection


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Transactions that commit, on a database without a catalog."""
    found = connect(database_url)
    yield found
    found.dispose()


def did(
    user_id: int, item_id: int, *, days: float = 0, at: datetime = NOW, action: Action = Action.CLICK, ordinal: int = 0
) -> Behavior:
    return Behavior(
        user_id=user_id,
        domain=Domain.CONTENT if item_id > 10 else Domain.AD,
        action=action,
        item_id=item_id,
        occurred_at=at - timedelta(days=days),
        ordinal=ordinal,
    )


def summaries(connection: Connection) -> dict[int, Any]:
    return {row.user_id: row for row in connection.execute(select(interest_summaries).order_by("event_at"))}


def sequences(connection: Connection) -> dict[tuple[int, str], Any]:
    return {
        (row.user_id, row.domain): row for row in connection.execute(select(behavior_sequences).order_by("event_at"))
    }


def history(connection: Connection, user_id: int = 7) -> list[tuple[datetime, list[int]]]:
    """The user's rows of the ad domain: from when, which items."""
    columns = behavior_sequences.c
    query = select(columns.event_at, columns.item_ids).where(columns.user_id == user_id, columns.domain == "ad")
    return [tuple(row) for row in connection.execute(query.order_by("event_at"))]


# 1. What a row holds


def test_liked_categories_count_both_domains_most_frequent_first(catalog: Connection) -> None:
    liked = [did(7, 1, days=5), did(7, 11, days=4, action=Action.WATCH), did(7, 3, days=3), did(7, 2, days=2)]
    upsert_behaviors(catalog, [*liked, did(7, 12, days=9, action=Action.SEARCH), did(7, 1, days=8)], arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    row = summaries(catalog)[7]
    assert (row.categories, row.counts) == (["Skin Care", "Hotels", "Beauty"], [3, 2, 1])
    assert (row.disliked_categories, row.disliked_counts) == ([], [])
    assert (row.event_at, row.newest_at) == (NOW - timedelta(days=2), NOW - timedelta(days=2))
    assert (row.spus, row.spu_counts) == (["cream", "soap", "inn"], [3, 1, 1])


def test_disliked_are_skips_and_what_was_shown_in_vain(catalog: Connection) -> None:
    upsert_behaviors(
        catalog, [did(7, 11, days=6, action=Action.SKIP), did(7, 3, days=2, action=Action.IMPRESSION)], arrived_at=NOW
    )
    shown = {"user_id": 7, "ecpm": 2.0}
    upsert_impressions(
        catalog,
        [
            Impression(ad_id=1, occurred_at=NOW - timedelta(days=5), **shown),
            Impression(ad_id=3, occurred_at=NOW - timedelta(days=4), **shown),
            Impression(ad_id=3, occurred_at=NOW - timedelta(days=3), clicked=True, **shown),
        ],
        arrived_at=NOW,
    )
    write_summaries(catalog, now=NOW)
    row = summaries(catalog)[7]
    assert (row.categories, row.counts) == ([], [])
    assert (row.disliked_categories, row.disliked_counts) == (["Skin Care", "Hotels"], [2, 1])
    assert (row.disliked_spus, row.disliked_spu_counts) == (["cream"], [2])
    assert (row.event_at, row.newest_at) == (NOW - timedelta(days=2), NOW - timedelta(days=4))


def test_sequences_are_positive_oldest_first_and_parallel(catalog: Connection) -> None:
    rows = [
        did(7, 3, days=1, action=Action.CONVERSION),
        did(7, 1, days=2, ordinal=4),
        did(7, 2, days=2, ordinal=3),
        did(7, 12, days=3, action=Action.WATCH),
        did(7, 11, days=0.5, action=Action.SKIP),
        did(7, 99, days=4, action=Action.WATCH),
        did(7, 1, days=91.5),
    ]
    upsert_behaviors(catalog, rows, arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    found = sequences(catalog)
    ad, content = found[7, "ad"], found[7, "content"]
    assert (ad.item_ids, ad.titles, ad.ordinals) == ([2, 1, 3], ["ad 2", "ad 1", "ad 3"], [3, 4, 0])
    assert ad.actions == ["click", "click", "conversion"]
    assert ad.occurred_at_s == [(NOW - timedelta(days=days)).timestamp() for days in (2, 2, 1)]
    assert (ad.event_at, ad.newest_at) == (NOW - timedelta(days=0.5), NOW - timedelta(days=1))
    assert (content.item_ids, content.titles) == ([99, 12], ["", "Hotels"])
    assert (content.event_at, content.newest_at) == (NOW - timedelta(days=0.5), NOW - timedelta(days=3))


def test_top_and_longest_bound_the_lists(catalog: Connection) -> None:
    upsert_behaviors(
        catalog, [did(7, item, days=days) for item, days in [(1, 4), (1, 3), (2, 2), (3, 1)]], arrived_at=NOW
    )
    write_summaries(catalog, now=NOW, top=2, longest=3)
    assert summaries(catalog)[7].categories == ["Skin Care", "Hotels"]
    assert sequences(catalog)[7, "ad"].item_ids == [1, 2, 3]


# 2. When a row is appended


def test_running_again_appends_nothing(catalog: Connection) -> None:
    upsert_behaviors(catalog, [did(7, 1, days=1), did(8, 1, days=1)], arrived_at=NOW)
    assert write_summaries(catalog, now=NOW) == SummaryCounts(interest_summaries=2, behavior_sequences=2, summarized=2)
    assert write_summaries(catalog, now=NOW) == SummaryCounts()
    assert write_summaries(catalog, now=NOW + HOUR) == SummaryCounts()
    upsert_behaviors(catalog, [did(7, 1, days=1)], arrived_at=NOW + HOUR)
    assert write_summaries(catalog, now=NOW + HOUR) == SummaryCounts()


def test_only_the_users_asked_for_are_written(catalog: Connection) -> None:
    upsert_users(catalog, [Profile(user_id=7)], event_at=NOW)
    upsert_behaviors(catalog, [did(7, 1, days=1), did(8, 1, days=1), did(9, 1, days=1)], arrived_at=NOW)
    given = summarize_given(catalog, [8, 9, 10], now=NOW, window_days=90)
    assert given == Given(summarized=2, interest_summaries=2, behavior_sequences=2, known={8: 1, 9: 1})
    assert sorted(summaries(catalog)) == [8, 9]
    assert summarize_given(catalog, [], now=NOW, window_days=90).summarized == 0
    assert write_summaries(catalog, now=NOW).summarized == 1


def test_a_late_behavior_is_in_a_row_of_its_own_from_its_arrival_on(catalog: Connection) -> None:
    clicks = [did(7, 1, days=number / 24) for number in range(8)]
    append_behaviors(catalog, clicks, arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    late = [did(7, 3, days=3), did(7, 3, days=2)]
    append_behaviors(catalog, late, arrived_at=NOW + HOUR)
    write_summaries(catalog, now=NOW + 2 * HOUR)
    assert history(catalog) == [(NOW, [1] * 8), (NOW + HOUR, [3, 3] + [1] * 8)]
    assert sequences(catalog)[7, "ad"].newest_at == NOW


def test_a_behavior_leaves_at_the_midnight_after_the_windows_days(catalog: Connection) -> None:
    noon = NOW - DAY / 2
    upsert_behaviors(catalog, [did(7, 1, at=noon), did(7, 11, at=noon, action=Action.SKIP)], arrived_at=NOW)
    upsert_behaviors(catalog, [did(7, 3, at=noon, days=2)], arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    left = NOW + 88 * DAY
    for now in (left - timedelta(microseconds=1), left, left + 2 * DAY + HOUR, left + 9 * DAY):
        write_summaries(catalog, now=now)
    assert history(catalog) == [
        (noon - 2 * DAY, [3]),
        (noon, [3, 1]),
        (left, [1]),
        (left + 2 * DAY, []),
    ]
    row = summaries(catalog)[7]
    assert (row.event_at, row.newest_at, row.categories, row.disliked_categories) == (left + 2 * DAY, None, [], [])


def test_rows_of_the_past_stay_as_they_are_whatever_comes_late(catalog: Connection) -> None:
    def everything() -> list[Any]:
        return [*catalog.execute(select(interest_summaries)), *catalog.execute(select(behavior_sequences))]

    append_behaviors(catalog, [did(7, 1, days=1)], arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    written = everything()
    late = [did(7, 3, days=days) for days in (0.5, 1, 2)]
    append_behaviors(catalog, late[:1], arrived_at=NOW - HOUR)  # by a clock that is behind
    upsert_behaviors(catalog, late[1:], arrived_at=NOW + HOUR)
    upsert_impressions(
        catalog, [Impression(user_id=7, ad_id=1, occurred_at=NOW - DAY, ecpm=1.0)], arrived_at=NOW + HOUR
    )
    write_summaries(catalog, now=NOW + DAY)
    assert all(row in everything() for row in written)
    assert [event_at for event_at, _ in history(catalog)] == [NOW, NOW + timedelta(microseconds=1), NOW + HOUR]


def test_yesterdays_log_counts_from_its_import_where_a_run_has_been_since(catalog: Connection) -> None:
    log = [did(user, 3, days=1) for user in (7, 8, 9)]
    upsert_behaviors(catalog, [did(7, 1, days=2), did(8, 1, days=2)], arrived_at=NOW - DAY)
    write_summaries(catalog, now=NOW)  # says of user 9, too, what is known at NOW: nothing
    upsert_behaviors(catalog, log, arrived_at=NOW + HOUR)
    write_summaries(catalog, now=NOW + 2 * HOUR)
    for user in (7, 8):
        assert history(catalog, user) == [(NOW - 2 * DAY, [1]), (NOW + HOUR, [1, 3])]
    assert history(catalog, 9) == [(NOW + HOUR, [3])]


def test_a_log_of_the_past_counts_from_its_own_times_where_nothing_is_settled(catalog: Connection) -> None:
    for days in (300, 200, 100):
        upsert_behaviors(catalog, [did(7, 1, days=days), did(7, 3, days=days + 1)], arrived_at=NOW)
    write_summaries(catalog, now=NOW - 150 * DAY)
    upsert_behaviors(catalog, [did(7, 2, days=50)], arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    midnight = [NOW - days * DAY for days in (300, 210, 209, 200, 110, 109, 100, 50, 10, 9)]
    assert [event_at for event_at, _ in history(catalog)] == midnight
    assert [items for _, items in history(catalog)][-4:] == [[3, 1], [3, 1, 2], [1, 2], [2]]


def test_what_happens_ahead_of_time_is_known_at_its_time(catalog: Connection) -> None:
    append_behaviors(catalog, [did(7, 1, days=-0.5)], arrived_at=NOW)
    assert write_summaries(catalog, now=NOW).behavior_sequences == 0
    assert write_summaries(catalog, now=NOW + DAY).behavior_sequences == 1
    assert history(catalog) == [(NOW + DAY / 2, [1])]


def test_a_click_that_is_told_later_ends_the_dislike(catalog: Connection) -> None:
    shown = Impression(user_id=7, ad_id=1, occurred_at=NOW, ecpm=1.0)
    outcomes = [shown, replace(shown, ecpm=2.0), replace(shown, clicked=True), shown]
    for hours, outcome in enumerate(outcomes):
        upsert_impressions(catalog, [outcome], arrived_at=NOW + hours * HOUR)
        write_summaries(catalog, now=NOW + (hours + 0.5) * HOUR)
    columns = interest_summaries.c
    rows = catalog.execute(select(columns.event_at, columns.disliked_categories).order_by("event_at")).all()
    assert rows == [(NOW, ["Skin Care"]), (NOW + 2 * HOUR, []), (NOW + 3 * HOUR, ["Skin Care"])]


def test_a_user_of_the_nearline_path_gets_the_catalogs_new_words(catalog: Connection) -> None:
    append_behaviors(catalog, [did(7, 5)], arrived_at=NOW)
    write_summaries(catalog, now=NOW)
    catalog.execute(text("UPDATE ads SET name = 'renamed', ad_id = 5, source_id = '5' WHERE ad_id = 1"))
    assert write_summaries(catalog, now=NOW + HOUR).summarized == 0
    summarize_given(catalog, [7], now=NOW + HOUR, window_days=90)
    assert sequences(catalog)[7, "ad"].titles == ["renamed"]
    assert summaries(catalog)[7].event_at == NOW + HOUR


def test_of_very_many_instants_the_oldest_are_one(catalog: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        append_behaviors(catalog, [did(7, 1, ordinal=number)], arrived_at=NOW + number * HOUR)
    monkeypatch.setattr(instants, "MOST_INSTANTS", 3)
    write_summaries(catalog, now=NOW + 9 * HOUR)
    assert [(at - NOW, len(items)) for at, items in history(catalog)] == [(n * HOUR, n + 1) for n in (5, 6, 7)]


# 3. Who writes when


def test_a_run_leaves_out_whom_somebody_writes_to_and_takes_them_next_time(engine: Engine, database_url: str) -> None:
    with transaction(engine) as connection:
        append_behaviors(connection, [did(7, 1), did(8, 1)], arrived_at=NOW)
    with transaction(engine) as writer:
        append_behaviors(writer, [did(7, 3)], arrived_at=NOW)
        assert summarize(database_url, now=NOW).summarized == 1
        hasty = connect(database_url, lock_timeout_s=0.05)
        with pytest.raises(Unavailable, match="lock"), transaction(hasty) as connection:
            summarize_given(connection, [7], now=NOW, window_days=90)  # given users are waited for
        hasty.dispose()
    assert summarize(database_url, now=NOW + HOUR).summarized == 1
    with transaction(engine) as connection:
        assert history(connection) == [(NOW, [1, 3])]


def test_a_behavior_that_waited_for_a_summary_is_known_after_it(engine: Engine, database_url: str) -> None:
    with transaction(engine) as connection:
        append_behaviors(connection, [did(7, 1)], arrived_at=NOW)
    hasty = connect(database_url, lock_timeout_s=0.05)
    with transaction(engine) as connection:
        summarize_given(connection, [7], now=NOW + HOUR, window_days=90)
        with pytest.raises(Unavailable, match="lock"), transaction(hasty) as other:
            append_behaviors(other, [did(7, 3)], arrived_at=NOW)
    with transaction(hasty) as other:
        append_behaviors(other, [did(7, 3)], arrived_at=NOW)
        write_summaries(other, now=NOW + 2 * HOUR)
        assert [event_at for event_at, _ in history(other)] == [NOW, NOW + HOUR + timedelta(microseconds=1)]
    hasty.dispose()


def test_two_connections_share_the_users_and_a_progress_call_tells(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_records, "waiting_batches", partial(of_records.waiting_batches, rows=500))
    told: list[int] = []
    with transaction(engine) as connection:
        upsert_behaviors(connection, [did(user, 1, days=1) for user in range(1234)], arrived_at=NOW)
    counts = summarize(database_url, now=NOW, progress=lambda _, done: told.append(done))
    assert counts == SummaryCounts(interest_summaries=1234, behavior_sequences=1234, summarized=1234)
    assert max(told) == 1234
    assert len(told) == 3
    assert summarize(database_url, now=NOW) == SummaryCounts()


# 4. The window


def test_the_window_is_that_of_the_live_release(catalog: Connection) -> None:
    upsert_behaviors(catalog, [did(7, 1, days=9)], arrived_at=NOW)
    record_index(catalog, "i", uri="", recipe={}, quality={})
    for days in (5, 20):
        record_release(
            catalog, f"{days}", index_version="i", uri="", recipe={"prompt": {"window_days": days}}, metrics={}
        )
    assert of_records.live_window_days(catalog) == 90
    promote(catalog, "5")
    write_summaries(catalog, now=NOW)
    assert history(catalog) == [(NOW - 9 * DAY, [1]), (NOW - 3 * DAY, [])]
    promote(catalog, "20")
    summarize_given(catalog, [7], now=NOW + HOUR, window_days=20)
    assert history(catalog)[2:] == [(NOW + HOUR, [1])]


def test_an_old_log_is_refused_with_what_to_do(engine: Engine, database_url: str) -> None:
    with transaction(engine) as connection:
        upsert_behaviors(connection, [did(7, 1, days=days) for days in (400, 300)], arrived_at=NOW)
    said = (
        "2 behaviors, none in the 90 days before 2025-06-01; the newest is of 2024-08-05: --now, or --window-days as "
        "prompt.window_days of the recipe"
    )
    with pytest.raises(InvalidInput, match=said):
        summarize(database_url, now=NOW)
    assert summarize(database_url, now=NOW, window_days=300).behavior_sequences == 2  # the older one has left
    assert summarize(database_url, now=NOW + 9 * DAY, window_days=300).behavior_sequences == 1  # it leaves


def test_a_database_without_behaviors_is_nothing_to_complain_of(database_url: str) -> None:
    assert summarize(database_url, now=NOW) == SummaryCounts()


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
