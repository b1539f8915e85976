"""Ads spelled as text (leadre.experiments.generated_texts.ad_texts) in this world: only the spelling changes."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.ads import Ad
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, InvalidSemanticId
from leadre.experiments.generated_texts.ad_texts import compressed_texts, original_texts, spelled
from leadre.indexing.ad_index import AdIndex
from leadre.recipe import Recipe
from leadre.synthetic import World, make_world
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import main
from leadre.training.learner.learner import Learner, fresh_learner
from leadre.training.learner.tokenizer import text_encoder

ANY_AD = make_world(ads=96, users=1).ads[0]


def named(*names: str) -> list[Ad]:
    return [dataclasses.replace(ANY_AD, ad_id=number, name=name) for number, name in enumerate(names)]


def test_a_compressed_text_is_the_rarest_words_and_one_more_where_two_ads_would_share_it() -> None:
    ads = named(
        "the red sofa by Lumo",
        "the red table by Lumo",
        "the blue table by Lumo",
        "the old table by Orva",
        "the red bed",
    )
    # Of 5 ads: the 5, by 4, red 3, table 3, Lumo 2, sofa 1, blue 1, old 1, Orva 1, bed 1; equal ones as in the name.
    assert compressed_texts(ads) == ["sofa red", "red table", "blue table", "old Orva", "bed red"]
    both = compressed_texts(named("grey Lumo lamp one", "grey Lumo lamp two", "tall lamp"))
    assert both == ["one grey", "two grey", "tall lamp"]


def test_words_that_all_of_the_group_have_are_not_added() -> None:
    # The third word of both would be Pro, which does not tell them from each other; Mini and Maxi do.
    ads = named(
        "lamp Orva Pro Mini", "lamp Orva Pro Maxi", "Mini", "Maxi", "Mini Pro", "Maxi Pro", "Mini chair", "Maxi bed"
    )
    assert compressed_texts(ads)[:2] == ["lamp Orva Mini", "lamp Orva Maxi"]


words = st.lists(st.sampled_from(("red", "sofa", "Lumo", "Pro", "by")), min_size=1, max_size=5).map(" ".join)


@given(names=st.lists(words, min_size=1, max_size=12))
def test_only_ads_with_the_same_words_share_a_compressed_text(names: list[str]) -> None:
    texts = compressed_texts(named(*names))
    assert texts == compressed_texts(named(*names))
    for name, text in zip(names, texts, strict=True):
        assert set(text.split()) <= set(name.split())
    for text, times in Counter(texts).items():
        if times > 1:
            sharing = [set(name.split()) for name, own in zip(names, texts, strict=True) if own == text]
            assert all(one == sharing[0] for one in sharing)


@pytest.fixture(scope="module")
def texts(world: World, index: AdIndex) -> dict[SemanticId, str]:
    return {index.sid(ad.ad_id): text for ad, text in zip(world.ads, original_texts(world.ads), strict=True)}


@pytest.fixture(scope="module")
def learner(recipe: Recipe, index: AdIndex, data: TrainingData) -> Learner:
    return fresh_learner(recipe, index, data, more_text=["an uncommon sentence"] * 50)


def test_the_tokenizer_learns_from_what_it_is_given_beside_the_prompts(learner: Learner) -> None:
    assert len(text_encoder(learner.text_tokenizer)("an uncommon sentence")) <= 2


def test_spelled_prompts_have_the_same_samples_and_supervise_texts_in_place_of_codes(
    learner: Learner, data: TrainingData, texts: dict[SemanticId, str]
) -> None:
    by_text = spelled(learner, texts)
    encode, end = text_encoder(learner.text_tokenizer), learner.vocabulary.eos_id
    of_sids, of_texts = main.examples(data, learner.encoder), main.examples(data, by_text.encoder)
    assert len(of_sids) == len(of_texts) > 0
    users = [user for user, positions in enumerate(data.targets) if positions]
    longest = 0
    for user, example in zip(users, of_texts, strict=True):
        spelling = [token for at in data.targets[user] for token in (*encode(texts[data.answer(user, at)]), end)]
        learned = [example.input_ids[at] for at in example.supervised]
        assert learned == spelling[-len(learned) :]
        assert learned[-1] == end
        assert all(by_text.vocabulary.level_of(token) is None for token in example.input_ids)
        longest = max(longest, len(example.input_ids))
    assert longest <= data.recipe.budget_tokens + learner.vocabulary.levels  # the same context window


def test_ads_without_a_text_and_texts_too_long_for_the_budget_are_refused(
    learner: Learner, texts: dict[SemanticId, str]
) -> None:
    sid = next(iter(texts))
    with pytest.raises(InvalidSemanticId, match="has no text"):
        spelled(learner, {sid: "sofa"}).encoder.vocabulary.sid_ids(SemanticId((30, 30, 30)))
    with pytest.raises(InvalidInput, match="budget_tokens=260"):
        spelled(learner, {**texts, sid: "".join(map(chr, range(300, 700)))})
