from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.events import append_behaviors, upsert_behaviors
from leadre.store.records.request_path import popular_ads, unknown_items
from leadre.store.records.summaries import write_summaries

NOW = datetime(2025, 3, 4, tzinfo=UTC)


def test_unknown_items_are_counted_by_domain_and_have_no_title(connection: Connection) -> None:
    upsert_content_items(connection, [ContentItem(content_id=4, source_id="4", title="A clip", category="music")])
    rows = [
        Behavior(user_id=1, domain=domain, action=action, item_id=item, occurred_at=NOW - timedelta(hours=item))
        for domain, action in ((Domain.AD, Action.CLICK), (Domain.CONTENT, Action.WATCH))
        for item in (4, 5, 5 + (domain is Domain.AD))
    ]
    append_behaviors(connection, rows, arrived_at=NOW)
    assert unknown_items(connection, rows) == {Domain.AD: 3, Domain.CONTENT: 2}
    assert unknown_items(connection, rows[3:4]) == {Domain.AD: 0, Domain.CONTENT: 0}
    write_summaries(connection, now=NOW)
    titles = {row.domain: row.titles for row in connection.execute(text("SELECT * FROM behavior_sequences"))}
    assert titles == {"ad": ["", "", ""], "content": ["", "A clip"]}
    assert connection.execute(text("SELECT categories, counts FROM interest_summaries")).one() == (["music"], [1])


def test_popular_ads_are_those_that_everybody_may_see_now(connection: Connection) -> None:
    plain = Ad(
        ad_id=1,
        source_id="1",
        name="An ad",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=1.0,
        created_at=NOW - timedelta(days=9),
    )
    hour = timedelta(hours=1)
    inventory = [
        plain,
        replace(plain, ad_id=2, source_id="2"),
        replace(plain, ad_id=3, source_id="3", live=False),
        replace(plain, ad_id=4, source_id="4", budget_exhausted=True),
        replace(plain, ad_id=5, source_id="5", ends_at=NOW),
        replace(plain, ad_id=6, source_id="6", starts_at=NOW + hour),
        replace(plain, ad_id=7, source_id="7", targeting=Targeting.of({"sex": ["female"]})),
        replace(plain, ad_id=8, source_id="8", starts_at=NOW, ends_at=NOW + hour),
    ]
    upsert_ads(connection, inventory)
    upsert_users(connection, [Profile(user_id=user) for user in range(9)], event_at=NOW - timedelta(days=9))
    clicks = [
        Behavior(user_id=user, domain=Domain.AD, action=Action.CLICK, item_id=ad.ad_id, occurred_at=NOW - hour)
        for ad in inventory
        for user in range(ad.ad_id)
    ]
    upsert_behaviors(connection, clicks, unknown="refuse", arrived_at=NOW)
    assert popular_ads(connection, now=NOW, days=7, limit=9) == [8, 2, 1]
    assert popular_ads(connection, now=NOW + hour, days=7, limit=9) == [6, 2, 1]
