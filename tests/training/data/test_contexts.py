from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from leadre.domain.behavior import Action, Domain
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.recipe import PromptRecipe
from leadre.store.features.context import context_of
from leadre.store.records import catalog
from leadre.store.records.database import connect
from leadre.store.records.events import Sequences, read_sequences, upsert_behaviors
from leadre.store.records.summaries import write_summaries
from leadre.synthetic import make_world
from leadre.training.data.contexts import ACTIONS, DOMAINS, ContextBuilder, read_contexts

DAY_S = 86_400.0
NOW = datetime(2025, 5, 5, tzinfo=UTC)
TITLES = ({number: f"ad {number}" for number in range(9)}, {number: f"video {number}" for number in range(9)})
CATEGORIES = ({number: "abc"[number % 3] for number in range(9)}, {number: "cd"[number % 2] for number in range(9)})

SPUS = ({number: "xyz"[number % 3] for number in range(1, 9)}, {})


def sequences(users):
    """Sequences of lists of (domain, item, days before NOW), oldest first."""
    rows = [row for rows in users for row in rows]
    return Sequences(
        users=np.arange(len(users)) + 70,
        offsets=np.cumsum([0, *map(len, users)]),
        item_ids=np.array([item for _, item, _ in rows], np.int64),
        domains=np.array([domain for domain, _, _ in rows], np.uint8),
        actions=np.array([ACTIONS.index((Action.CLICK, Action.WATCH)[domain]) for domain, _, _ in rows], np.uint8),
        occurred_at_s=np.array([NOW.timestamp() - days * DAY_S for _, _, days in rows], np.float64),
        ordinals=np.arange(len(rows)),
    )


@pytest.fixture
def connection(database_url):
    """An open transaction; undone after the test."""
    engine = connect(database_url)
    with engine.connect() as found:
        yield found
    engine.dispose()


def builder(users, **settings):
    profiles = {70: Profile(user_id=70, age=40)}
    return ContextBuilder(sequences(users), profiles, TITLES, CATEGORIES, SPUS, recipe=PromptRecipe(**settings))


USER = [(0, 1, 100), (0, 2, 50), (1, 3, 9), (0, 5, 8), (1, 1, 2), (0, 4, 1)]


def test_a_context_holds_the_past_of_its_user_within_the_window():
    context = builder([[(0, 7, 3)], USER]).context(1, 5, NOW)
    assert context.profile == Profile(user_id=71)
    assert [shown.title for shown in context.behaviors] == ["ad 2", "video 3", "ad 5", "video 1"]
    assert context.behaviors[0].behavior.occurred_at == NOW - timedelta(days=50)
    assert [shown.behavior.domain for shown in context.behaviors] == [DOMAINS[code] for code in (0, 1, 0, 1)]
    assert context.summary.liked == (("d", 2), ("c", 2))


def test_the_summary_ranks_by_count_then_newest_then_name():
    users = [[(0, 1, 5), (0, 0, 4), (1, 0, 3), (1, 1, 3), (0, 0, 2)]]
    assert builder(users).context(0, 5, NOW).summary.liked == (("a", 2), ("c", 1), ("d", 1), ("b", 1))
    assert builder(users, summary_categories=1).context(0, 5, NOW).summary.liked == (("a", 2),)


def test_the_summary_counts_product_units_where_the_recipe_has_them():
    assert builder([USER]).context(0, 6, NOW).summary.liked_spus == ()
    summary = builder([USER], summary_spus=2).context(0, 6, NOW).summary
    assert summary.liked_spus == (("z", 2), ("y", 1))
    assert summary.liked == builder([USER]).context(0, 6, NOW).summary.liked


def test_the_window_begins_at_a_midnight():
    users = [[(0, 1, 3), (0, 2, 2.999), (0, 3, 2)]]
    noon = NOW + timedelta(hours=12)
    for now in (NOW, noon, NOW + timedelta(hours=23.99)):
        assert len(builder(users, window_days=3).context(0, 3, now).behaviors) == 3
    assert len(builder(users, window_days=3).context(0, 3, NOW + timedelta(days=1)).behaviors) == 1


def test_training_reads_of_a_user_what_serving_reads(connection):
    """The same behaviors through the summaries' SQL and through the builder: one context."""
    world = make_world(seed=3, users=25, sessions=6, ads=96, days=120, now=NOW + timedelta(hours=7))
    catalog.upsert_ads(connection, world.ads)
    catalog.upsert_users(connection, world.profiles, event_at=NOW)
    catalog.upsert_content_items(connection, world.content_items)
    upsert_behaviors(connection, world.behaviors, arrived_at=world.now)
    write_summaries(connection, now=world.now)
    names = ["user_id", "categories", "counts", "spus", "spu_counts", "disliked_categories", "disliked_counts"]
    query = "SELECT DISTINCT ON (user_id) * FROM interest_summaries ORDER BY user_id, event_at DESC"
    summaries = {row.user_id: dict(row._mapping) for row in connection.execute(text(query))}
    served = {user_id: {name: row[name] for name in names} for user_id, row in summaries.items()}
    for domain in Domain:
        query = (
            "SELECT DISTINCT ON (user_id) * FROM behavior_sequences WHERE domain = :domain "
            "ORDER BY user_id, event_at DESC"
        )
        for row in connection.execute(text(query), {"domain": domain.value}).mappings():
            lists = ("item_ids", "actions", "titles", "occurred_at_s", "ordinals")
            served[row["user_id"]] |= {f"{domain}_{name}": row[name] for name in lists}
    recipe = PromptRecipe(summary_categories=20, summary_spus=20)
    known = read_sequences(connection)
    trained = read_contexts(connection, known, recipe=recipe)
    for number, user_id in enumerate(known.users.tolist()):
        row = defaultdict(list, served[user_id])
        context = context_of(row, user_id=user_id, now=world.now)
        expected = trained.context(number, int(np.diff(known.offsets)[number]), world.now)
        assert expected.behaviors == context.behaviors
        assert (expected.summary.liked, expected.summary.liked_spus) == (
            context.summary.liked,
            context.summary.liked_spus,
        )


rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 11), st.integers(0, 120)), max_size=12)


@given(st.lists(rows.map(lambda user: sorted(user, key=lambda row: -row[2])), min_size=1, max_size=4), st.data())
def test_a_context_never_depends_on_what_comes_later(users, data):
    user = data.draw(st.integers(0, len(users) - 1))
    upto = data.draw(st.integers(0, len(users[user])))
    cut = [rows[:upto] if number == user else rows for number, rows in enumerate(users)]
    whole, known = (builder(each, window_days=60).context(user, upto, NOW) for each in (users, cut))
    assert [(shown.title, shown.behavior.occurred_at) for shown in whole.behaviors] == [
        (shown.title, shown.behavior.occurred_at) for shown in known.behaviors
    ]
    assert whole.summary == known.summary
    assert sum(count for _, count in whole.summary.liked) <= len(whole.behaviors)


def test_positions_beyond_the_user_are_refused():
    with pytest.raises(InvalidInput, match="upto=7"):
        builder([USER]).context(0, 7, NOW)


def test_the_same_catalog_serves_other_behaviors():
    other = builder([USER]).over(sequences([[(0, 8, 6)]]))
    assert other.context(0, 1, NOW).behaviors[0].title == "ad 8"
    (behavior,) = other.behaviors(0)
    assert (behavior.item_id, behavior.user_id, behavior.domain) == (8, 70, Domain.AD)
