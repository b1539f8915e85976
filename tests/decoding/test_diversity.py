from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from leadre.decoding.diversity import first_category_groups, generate_capped
from leadre.decoding.engine import Score
from leadre.decoding.load import engine_of
from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
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


def categories(index: AdIndex, beams: Any) -> Counter[int]:
    rows = index.rows(np.array([beam.ad_id for beam in beams]))
    return Counter(index.first_categories[rows].tolist())


def test_no_category_exceeds_the_cap_and_each_has_its_own_best(index: AdIndex, make: Callable[[Score], Any]) -> None:
    engine, prompts = make("level"), [[1, 2, 3], [4, 5]]
    live = LiveMask.of(np.random.default_rng(1).random(150) < 0.7)
    groups = first_category_groups(index)

    capped = generate_capped(engine, prompts, beam_width=12, groups=groups, most=3, filters=[None, live])

    for prompt, mask, beams in zip(prompts, [None, live], capped, strict=True):
        assert len(beams) == 12
        assert max(categories(index, beams).values()) == 3
        scores = [beam.log_probability for beam in beams]
        assert scores == sorted(scores, reverse=True)
        best = []
        for group in groups:
            both = group if mask is None else group & mask
            best += engine.generate([prompt], beam_width=3, filters=[both])[0]
        best.sort(key=lambda beam: -beam.log_probability)
        assert [beam.ad_id for beam in beams] == [beam.ad_id for beam in best[:12]]


def test_a_cap_that_does_not_bind_gives_the_best_ads_of_all(index: AdIndex, make: Callable[[Score], Any]) -> None:
    engine = make("raw")

    capped = generate_capped(engine, [[7, 8]], beam_width=150, groups=first_category_groups(index), most=150)

    everything = engine.generate([[7, 8]], beam_width=150)
    assert {beam.ad_id for beam in capped[0]} == {beam.ad_id for beam in everything[0]}
    assert [beam.log_probability for beam in capped[0]] == pytest.approx(
        [beam.log_probability for beam in everything[0]], abs=1e-4
    )


def test_groups_cover_every_ad_once(index: AdIndex) -> None:
    groups = first_category_groups(index)

    leaves = np.arange(150)
    assert (sum(group.count(leaves, leaves + 1) for group in groups) == 1).all()


def test_what_cannot_be_capped_is_refused(index: AdIndex, make: Callable[[Score], Any]) -> None:
    groups = first_category_groups(index)
    with pytest.raises(ConfigError, match="`valid` scores do not"):
        generate_capped(make("valid"), [[1]], beam_width=3, groups=groups, most=1)
    with pytest.raises(InvalidInput, match="at least 1"):
        generate_capped(make("level"), [[1]], beam_width=3, groups=groups, most=0)
    with pytest.raises(InvalidInput, match="2 filters for 1 prompts"):
        generate_capped(make("level"), [[1]], beam_width=3, groups=groups, most=1, filters=[None, None])
