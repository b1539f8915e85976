from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.behavior import Action, Domain
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.recipe import PromptRecipe
from leadre.store.records.events import Sequences
from leadre.training.data.contexts import ACTIONS, DOMAINS, ContextBuilder

DAY_S = 86_400.0
NOW = datetime(2025, 5, 5, tzinfo=UTC)
TITLES = ({number: f"ad {number}" for number in range(9)}, {number: f"video {number}" for number in range(9)})
CATEGORIES = ({number: "abc"[number % 3] for number in range(9)}, {number: "cd"[number % 2] for number in range(9)})


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


def builder(users, **settings):
    profiles = {70: Profile(user_id=70, age=40)}
    return ContextBuilder(sequences(users), profiles, TITLES, CATEGORIES, recipe=PromptRecipe(**settings))


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
