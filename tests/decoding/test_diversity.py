from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from leadre.decoding.diversity import VariedEngine, mixture, with_variety
from leadre.decoding.engine import Score
from leadre.decoding.load import engine_of
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary

MakeIndex = Callable[..., AdIndex]


@pytest.fixture
def index(make_index: MakeIndex) -> AdIndex:
    """150 ads; category 0 has half of them, categories 1 to 4 the rest."""
    categories = np.random.default_rng(0).choice(5, 150, p=[0.5, 0.2, 0.15, 0.1, 0.05]).astype(np.int32)
    return dataclasses.replace(make_index(150), first_categories=categories, category_names=tuple("abcde"))


@pytest.fixture
def make(index: AdIndex, vocabulary: Vocabulary, make_model: Callable[..., PreTrainedModel]) -> Callable[[Score], Any]:
    return lambda score: engine_of(make_model(), index=index, vocabulary=vocabulary, score=score)


@pytest.mark.parametrize("score", ["raw", "level", "valid"])
def test_variety_changes_the_order_of_a_list_and_never_its_ads_or_its_whole_probability(
    score: Score, index: AdIndex, make: Callable[[Score], Any]
) -> None:
    engine, prompts = make(score), [[1, 2, 3], [4, 5]]
    plain = engine.generate(prompts, beam_width=40)
    varied = VariedEngine(engine, index=index, share=0.4).generate(prompts, beam_width=40)

    for before, after in zip(plain, varied, strict=True):
        assert {beam.ad_id for beam in before} == {beam.ad_id for beam in after}
        assert [beam.ad_id for beam in before] != [beam.ad_id for beam in after]
        scores = [beam.log_probability for beam in after]
        assert scores == sorted(scores, reverse=True)
        whole, again = (sum(np.exp(beam.log_probability) for beam in beams) for beams in (before, after))
        assert again == pytest.approx(whole, rel=1e-6)


def test_all_categories_of_a_list_are_among_its_first_ads_when_the_share_is_large(
    index: AdIndex, make: Callable[[Score], Any]
) -> None:
    varied = VariedEngine(make("level"), index=index, share=0.99)

    beams = varied.generate([[7, 8]], beam_width=150)[0]

    rows = index.rows(np.array([beam.ad_id for beam in beams]))
    assert sorted(index.first_categories[rows[:5]].tolist()) == [0, 1, 2, 3, 4]


def test_without_a_share_the_engine_itself_is_taken(index: AdIndex, make: Callable[[Score], Any]) -> None:
    engine = make("level")
    assert with_variety(engine, index=index, share=0.0) is engine


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.integers(0, 4)), min_size=1, max_size=12), st.floats(1e-3, 0.999))
def test_the_mixture_is_the_formula_and_keeps_the_order_within_a_category(
    ads: list[tuple[float, int]], share: float
) -> None:
    ads.sort(reverse=True)
    whole = sum(probability for probability, _ in ads)
    p = [probability / max(whole, 1.0) for probability, _ in ads]
    kinds = [kind for _, kind in ads]

    found = np.exp(mixture(np.log(p), np.array(kinds), share=share))

    even = share * sum(p) / len(set(kinds))
    expected = [(1 - share) * p[at] + even * (kinds.index(kinds[at]) == at) for at in range(len(p))]
    assert found == pytest.approx(expected)
    for kind in set(kinds):
        of_kind = [value for value, its in zip(found.tolist(), kinds, strict=True) if its == kind]
        assert of_kind == sorted(of_kind, reverse=True)


def test_a_new_category_passes_only_ads_that_are_hardly_likelier() -> None:
    p = np.array([0.5, 0.2, 0.1, 0.05, 0.02])
    categories = np.array([0, 0, 0, 0, 1])

    little, more = (np.argsort(-mixture(np.log(p), categories, share=share)).tolist() for share in (0.03, 0.15))

    assert little == [0, 1, 2, 3, 4]
    assert more == [0, 1, 2, 4, 3]
