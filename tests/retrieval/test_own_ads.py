"""Own ads: none is in a list that leaves them out, and the list is that of a trie that never had them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from leadre.decoding.engine import Engine
from leadre.decoding.load import engine_of
from leadre.decoding.stub import StubEngine
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.evaluation.baselines import Histories
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DecodingRecipe
from leadre.retrieval.own_ads import own_rows, seen_policy, without
from tests.decoding.conftest import CODE_COUNTS, make_index, make_model, make_prompts, vocabulary

__all__ = ["make_index", "make_model", "make_prompts", "vocabulary"]

NOW = datetime(2026, 5, 4, 13, tzinfo=UTC)


def context(ads: list[int], *, at: datetime = NOW, domain: Domain = Domain.AD) -> Context:
    rows = [
        Behavior(user_id=1, domain=domain, action=Action.CLICK, item_id=ad, occurred_at=at, ordinal=number)
        for number, ad in enumerate(ads)
    ]
    known = tuple(ContextBehavior(behavior=row, title="") for row in rows)
    return Context(profile=Profile(user_id=1), summary=InterestSummary(), behaviors=known, now=NOW)


@pytest.mark.parametrize("kind", ["hf", "shared_prefix", "stub"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_own_ad_is_returned_and_the_beams_are_those_of_a_trie_without_them(
    kind: Any,
    make_index: Callable[..., AdIndex],
    make_model: Callable[..., PreTrainedModel],
    make_prompts: Callable[..., list[list[int]]],
    vocabulary: Vocabulary,
    data: st.DataObject,
) -> None:
    index = make_index(23)
    model = make_model(seed=5)

    def engine(over: AdIndex) -> Engine:
        if kind == "stub":
            return StubEngine(over, vocabulary_size=vocabulary.size)
        return engine_of(model, index=over, vocabulary=vocabulary, score="level", kind=kind)

    own = data.draw(
        st.lists(st.lists(st.sampled_from([*index.ad_ids.tolist(), 7]), max_size=25), min_size=1, max_size=3)
    )
    live = data.draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=23, max_size=23)))
    given_ = None if live is None else LiveMask.of(np.array(live))
    rows = own_rows([context(ads) for ads in own], seen="leave_out", index=index, window_days=3)
    masks = without([given_] * len(own), rows, leaves=len(index))
    prompts = make_prompts(len(own), seed=len(own[0]))
    found = engine(index).generate(prompts, beam_width=6, filters=masks)
    for prompt, ads, beams in zip(prompts, own, found, strict=True):
        assert not {beam.ad_id for beam in beams} & set(ads)
        left = ~np.isin(index.ad_ids, ads) & (True if live is None else np.array(live))
        if not left.any():
            assert beams == []
            continue
        small = make_index(codes=index.codes[left], counts=CODE_COUNTS)
        expected = engine(small).generate([prompt], beam_width=6)[0]
        assert [beam.sid for beam in beams] == [beam.sid for beam in expected]
        assert [beam.log_probability for beam in beams] == pytest.approx(
            [beam.log_probability for beam in expected], abs=1e-4
        )


def test_ads_in_the_window_are_own_ads_and_content_and_what_is_older_is_not(
    make_index: Callable[..., AdIndex],
) -> None:
    index = make_index(5)
    first = datetime(2026, 5, 1, tzinfo=UTC)
    asked = [
        context([1001, 1001, 9]),
        context([1003], at=first),
        context([1004], at=first - timedelta(seconds=1)),
        context([1002], domain=Domain.CONTENT),
        context([]),
    ]
    found = own_rows(asked, seen="leave_out", index=index, window_days=3)
    assert [rows.tolist() for rows in found] == [[1, 1], [3], [], [], []]
    assert all(not len(rows) for rows in own_rows(asked, seen="keep", index=index, window_days=3))


def test_filters_of_users_who_have_nothing_stay_the_same_objects() -> None:
    mask, nothing = LiveMask.full(70), np.empty(0, np.int64)
    assert without([mask, None], [nothing, nothing], leaves=70) == [mask, None]
    left, other = without([mask, None], [np.array([69, 3, 69]), np.array([64])], leaves=70)
    assert left is not None
    assert other is not None
    assert (left.live_leaves, other.live_leaves, mask.live_leaves) == (68, 69, 70)
    gone = [leaf for leaf in range(70) if not left.count(np.array([leaf]), np.array([leaf + 1]))[0]]
    assert gone == [3, 69]


def test_the_histories_decide_unless_the_recipe_does() -> None:
    bought = Histories.of([np.array([1, 2, 3]), np.array([2, 4])])
    clicked = Histories.of([np.array([1, 2, 1]), np.array([2, 4])])
    assert [seen_policy(DecodingRecipe(), train) for train in (bought, clicked)] == ["leave_out", "keep"]
    assert seen_policy(DecodingRecipe(seen="keep"), bought) == "keep"
    assert seen_policy(DecodingRecipe(seen="leave_out"), clicked) == "leave_out"
