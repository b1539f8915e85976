"""Nouns: immutable, and small statements about them."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import UTC, datetime, timedelta

import pytest

from leadre.domain import ads, behavior, retrieval, semantic_id, targeting, users
from leadre.domain.behavior import POSITIVE, Action, Behavior, Domain
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
NOUNS = [
    noun
    for module in (ads, behavior, retrieval, semantic_id, targeting, users)
    for _, noun in inspect.getmembers(module, inspect.isclass)
    if dataclasses.is_dataclass(noun)
]


def act(action: Action, *, hours_ago: int = 0) -> Behavior:
    return Behavior(user_id=1, domain=Domain.AD, action=action, item_id=2, occurred_at=NOW - timedelta(hours=hours_ago))


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_nouns_are_frozen_and_slotted(noun: type) -> None:
    assert noun.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(noun)


@pytest.mark.parametrize("action", list(Action))
def test_clicks_conversions_watches_and_searches_are_positive(action: Action) -> None:
    assert act(action).positive == (action.value in {"click", "conversion", "watch", "search"})
    assert (action in POSITIVE) == act(action).positive


def test_the_newest_behavior_of_a_context_is_the_last_one() -> None:
    shown = tuple(ContextBehavior(behavior=act(Action.CLICK, hours_ago=hours), title="t") for hours in (5, 3))
    context = Context(profile=Profile(user_id=1), summary=InterestSummary(), behaviors=shown, now=NOW)
    assert context.newest_behavior_at == NOW - timedelta(hours=3)
    assert dataclasses.replace(context, behaviors=()).newest_behavior_at is None
