"""A user with every kind of behavior, and a text tokenizer that knows bytes alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import PromptRecipe

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
SIDS = {ad_id: SemanticId((ad_id % 3, ad_id % 5, 0)) for ad_id in range(1, 15)}

MakeBehavior = Callable[..., ContextBehavior]


@pytest.fixture
def behavior() -> MakeBehavior:
    def make(item_id: int, *, days: float, action: Action = Action.CLICK, title: str = "") -> ContextBehavior:
        domain = Domain.CONTENT if action in {Action.WATCH, Action.SEARCH, Action.SKIP} else Domain.AD
        at = NOW - timedelta(days=days)
        done = Behavior(user_id=7, domain=domain, action=action, item_id=item_id, occurred_at=at)
        return ContextBehavior(behavior=done, title=title or f"title {item_id}")

    return make


@pytest.fixture
def context(behavior: MakeBehavior) -> Context:
    return Context(
        profile=Profile(user_id=7, age=31, sex="female", residence="Oslo", occupation="retail"),
        summary=InterestSummary(liked=(("books", 4), ("music", 2))),
        behaviors=(
            behavior(2, days=9.5),
            behavior(90, days=4, action=Action.WATCH),
            behavior(3, days=3, action=Action.CONVERSION),
            behavior(91, days=0.2, action=Action.SEARCH),
        ),
        now=NOW,
    )


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(text_size=256, code_counts=(3, 5, 2))


@pytest.fixture
def make_encoder(vocabulary: Vocabulary) -> Callable[[PromptRecipe], PromptEncoder]:
    return lambda recipe: PromptEncoder(vocabulary, lambda text: list(text.encode()), recipe)


@pytest.fixture
def sid_of() -> Callable[[int], SemanticId | None]:
    return SIDS.get
