"""§4.2.1 (3): the paper's own summary, counted by SQL from behaviors in both domains, by category and by SPU."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.domain.users import Context, Profile
from leadre.prompts.render import render
from leadre.recipe import PromptRecipe
from leadre.store.features.context import context_of
from leadre.store.records.catalog import upsert_ads, upsert_content_items
from leadre.store.records.database import connect
from leadre.store.records.events import upsert_behaviors, upsert_impressions
from leadre.store.records.summaries import write_summaries
from leadre.store.records.tables import interest_summaries

NOW = datetime(2025, 1, 31, tzinfo=UTC)
# The example's behaviors: days ago, action, category, what it is of. The paper describes a content behavior by its
# category and SPU and prints the SPU; the ads' names are those of its implicit example.
EXAMPLE = (
    (32, Action.WATCH, "entertainment", "reality"),
    (31, Action.CLICK, "entertainment", "Bali 7-Day Tour"),
    (27, Action.WATCH, "entertainment", "shuttlecock"),
    (25, Action.WATCH, "mental health", "Emotional/psychological age test"),
    (22, Action.CONVERSION, "mental health", "psychological test"),
    (19, Action.CLICK, "education", "Educational Counseling"),
    (16, Action.CONVERSION, "emotion", "Tarot reading"),
)
COUNTS = {"emotion": 115, "entertainment": 28, "mental health": 8, "finance": 6, "education": 6}
CONTENT = (Action.WATCH, Action.SEARCH)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """An open transaction; undone after the test."""
    engine = connect(database_url)
    with engine.connect() as found:
        yield found
    engine.dispose()


def write(connection: Connection) -> None:
    """The example's behaviors, and older ones of things without an SPU, as many as the counts want."""
    shown = [*EXAMPLE]
    for category, count in COUNTS.items():
        missing = count - sum(of == category for _, _, of, _ in EXAMPLE)
        shown += [(40 + n % 45, (Action.CLICK, Action.SEARCH)[n % 2], category, "") for n in range(missing)]
    blank = {"ad_type": "", "attributes": (), "advertiser_id": 0, "bid": 0.0, "created_at": NOW}
    ads, items, behaviors = [], [], []
    for number, (days, action, category, spu) in enumerate(shown):
        content = action in CONTENT
        if content:
            title = spu or category
            items.append(ContentItem(content_id=number, source_id=str(number), title=title, category=category, spu=spu))
        else:
            ads.append(
                Ad(
                    ad_id=number,
                    source_id=str(number),
                    name=spu or category,
                    first_category=category,
                    second_category="",
                    spu=spu,
                    **blank,
                )
            )
        behaviors.append(
            Behavior(
                user_id=1,
                domain=Domain.CONTENT if content else Domain.AD,
                action=action,
                item_id=number,
                occurred_at=NOW - timedelta(days=days),
            )
        )
    upsert_ads(connection, ads)
    upsert_content_items(connection, items)
    upsert_behaviors(connection, behaviors, arrived_at=NOW)


def summary(connection: Connection) -> Context:
    """What a prompt would read."""
    row = connection.execute(select(interest_summaries).order_by(interest_summaries.c.event_at.desc())).first()
    assert row is not None
    sequences = [f"{domain}_{name}" for domain in Domain for name in ("item_ids", "actions", "titles")]
    times = [f"{domain}_{name}" for domain in Domain for name in ("occurred_at_s", "ordinals")]
    return context_of({**row._mapping, **dict.fromkeys([*sequences, *times])}, user_id=1, now=NOW)


def test_the_categories_and_counts_of_the_example(connection: Connection) -> None:
    write(connection)
    write_summaries(connection, now=NOW)
    paper = (
        "The categories that have been frequently interacted recently are (format: category^interaction times): "
        "emotion^115 times; entertainment^28 times; mental health^8 times; education^6 times; finance^6 times"
    )
    context = summary(connection)
    assert context.profile == Profile(user_id=1)
    assert paper in render(context, recipe=PromptRecipe(), sid_of=lambda _: None).text()


def test_positive_feedback_is_counted_by_product_unit_too(connection: Connection) -> None:
    write(connection)
    again = Behavior(
        user_id=1, domain=Domain.CONTENT, action=Action.WATCH, item_id=2, occurred_at=NOW - timedelta(days=1)
    )
    upsert_behaviors(connection, [again], arrived_at=NOW)
    write_summaries(connection, now=NOW)
    once = [(spu, 1) for *_, spu in reversed(EXAMPLE) if spu != "shuttlecock"]
    assert summary(connection).summary.liked_spus == (("shuttlecock", 2), *once)


def test_negative_feedback_is_counted_by_category_and_product_unit(connection: Connection) -> None:
    write(connection)
    skips = [
        Behavior(user_id=1, domain=Domain.CONTENT, action=Action.SKIP, item_id=0, occurred_at=NOW - timedelta(days=d))
        for d in (3, 4)
    ]
    upsert_behaviors(connection, skips, arrived_at=NOW)
    shown = Impression(user_id=1, ad_id=6, occurred_at=NOW - timedelta(days=2), ecpm=1.0)
    upsert_impressions(connection, [shown], arrived_at=NOW)
    write_summaries(connection, now=NOW)
    found = summary(connection).summary
    assert found.disliked == (("entertainment", 2), ("emotion", 1))
    assert found.disliked_spus == (("reality", 2), ("Tarot reading", 1))
    assert found.liked[0] == ("emotion", 115)
