"""Parts of sequences: which there are, what is left of a prompt, and what is retrieved for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.domain.behavior import Domain
from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT
from leadre.experiments.truncated import (
    LAST,
    NEWER,
    OLDER,
    WHOLE,
    WITHOUT_ADS,
    WITHOUT_CONTENT,
    keep,
    parts_of,
    read_histories,
    retrieve,
)
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.evaluate import answer
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import Prompt, Text
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import EvaluationRecipe, PromptRecipe, Recipe
from leadre.store.importers.synthetic import import_world
from leadre.synthetic import make_world

WORLD = make_world(seed=2, ads=97, users=40, sessions=5, slate=4)


@given(
    is_ad=st.lists(st.booleans(), min_size=2, max_size=12), points=st.sets(st.integers(1, 14)), seed=st.integers(0, 9)
)
def test_parts_are_the_ends_of_the_sequence_and_it_without_one_domain(
    is_ad: list[bool], points: set[int], seed: int
) -> None:
    length, domains = len(is_ad), np.array(is_ad)
    parts = parts_of(domains, sorted(points), seed=seed)
    everything = tuple(range(length))
    assert parts[WHOLE] == everything
    for point in points:
        assert parts.get(str(point)) == (everything[point:] if point < length else None)
    assert len(parts[NEWER]) == len(parts[OLDER]) == length - length // 2
    assert (parts[OLDER][0], parts[NEWER][-1], parts[LAST]) == (0, length - 1, (length - 1,))
    ads, content = sum(is_ad), length - sum(is_ad)
    assert (WITHOUT_ADS in parts) == (WITHOUT_CONTENT in parts) == bool(ads and content)
    if ads and content:
        for name, domain in ((WITHOUT_ADS, True), (WITHOUT_CONTENT, False)):
            gone = sorted(set(everything) - set(parts[name]))
            assert len(gone) == min(ads, content)
            assert set(domains[gone].tolist()) == {domain}


def test_what_is_kept_of_a_prompt_is_separated_as_before() -> None:
    behaviors = tuple((Text(name), *((Text("; "),) if name != "d" else ())) for name in "abcd")
    prompt = Prompt(head=(Text("<"),), behaviors=behaviors, tail=(Text(">"),))
    kept = {places: keep(prompt, places).text() for places in ((0, 1, 2, 3), (1, 3), (0, 2), (2,), (3,))}
    assert list(kept.values()) == ["<a; b; c; d>", "<b; d>", "<a; c>", "<c>", "<d>"]


@pytest.fixture(scope="module")
def index() -> AdIndex:
    count = len(WORLD.ads)
    return AdIndex.assemble(
        version="v1",
        ad_ids=np.array([ad.ad_id for ad in WORLD.ads]),
        codes=np.array([(at // 16, at % 16, 0) for at in range(count)], np.int32),
        first_categories=[ad.first_category for ad in WORLD.ads],
        second_categories=[ad.second_category for ad in WORLD.ads],
        advertiser_ids=np.array([ad.advertiser_id for ad in WORLD.ads]),
        embeddings=np.zeros((count, 5), np.float32),
        code_counts=(7, 16, 2),
        quality={},
    )


@pytest.mark.parametrize("content", [True, False])
def test_each_distinct_part_is_read_once_and_gives_the_engines_list(
    content: bool, database_url: str, index: AdIndex, echo: Callable[..., Any]
) -> None:
    import_world(WORLD, database_url=database_url)
    vocabulary = Vocabulary(text_size=256, code_counts=index.code_counts)
    encoder = PromptEncoder(vocabulary, lambda text: list(text.encode()), PromptRecipe(content=content))
    recipe = EvaluationRecipe(batch_users=7)
    histories = read_histories(
        database_url=database_url, index=index, encoder=encoder, recipe=recipe, now=datetime.now(UTC)
    )
    assert all(ads.all() for ads in histories.is_ad) == (not content)
    wanted = [parts_of(is_ad, (1, 2, 50), seed=3) for is_ad in histories.is_ad]
    engine = echo(index, vocabulary)
    found = retrieve(histories, wanted, engine=engine, encoder=encoder, recipe=recipe, beam_width=9, count=6)
    assert engine.prompts == sum(len(set(parts.values())) for parts in wanted)
    assert "50" not in found
    clicked = [
        [row.item_id for row in WORLD.behaviors if row.positive and row.domain is Domain.AD and row.user_id == user]
        for user in range(40)
    ]
    evaluated = [ads for ads in clicked if len(ads) >= 3]
    assert histories.targets.tolist() == [ads[-1] for ads in evaluated]
    for user, (parts, history) in enumerate(zip(wanted, evaluated, strict=True)):
        own = histories.is_ad[user]
        assert own.sum() == len(history) - 1
        for name, places in parts.items():
            kept = [history[int(own[:place].sum())] for place in places if own[place]]
            ads = [*dict.fromkeys(kept[::-1])][:6]
            assert found[name][user].tolist() == [*ads, *[ABSENT] * (6 - len(ads))]


def test_a_sample_of_the_users_is_that_of_the_evaluation(
    database_url: str, index: AdIndex, echo: Callable[..., Any]
) -> None:
    import_world(WORLD, database_url=database_url)
    vocabulary = Vocabulary(text_size=256, code_counts=index.code_counts)
    encoder = PromptEncoder(vocabulary, lambda text: list(text.encode()), PromptRecipe())
    recipe = Recipe(name="tiny", evaluation=EvaluationRecipe(max_users=11, baselines=()))
    found = read_histories(
        database_url=database_url, index=index, encoder=encoder, recipe=recipe.evaluation, now=WORLD.now
    )
    engine = echo(index, vocabulary)
    answers = answer(database_url=database_url, index=index, engine=engine, encoder=encoder, recipe=recipe)
    assert found.targets.tolist() == answers.data[0].item_ids[answers.split.test].tolist()
    assert len(found.targets) == 11


def test_without_histories_there_is_nothing_to_truncate(database_url: str, index: AdIndex) -> None:
    vocabulary = Vocabulary(text_size=256, code_counts=index.code_counts)
    encoder = PromptEncoder(vocabulary, lambda text: list(text.encode()), PromptRecipe())
    with pytest.raises(InvalidInput, match="import behaviors"):
        read_histories(
            database_url=database_url, index=index, encoder=encoder, recipe=EvaluationRecipe(), now=WORLD.now
        )
