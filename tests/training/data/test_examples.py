"""Examples: what is supervised, and what training never sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from leadre.domain.behavior import Domain
from leadre.errors import UnknownAd
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import Text
from leadre.recipe import Recipe, SftRecipe
from leadre.training.curriculum import stages
from leadre.training.data.examples import Example, TrainingData, corpus, to_dataset
from leadre.training.data.tasks import explicit, implicit, main


def supervised_ids(example: Example) -> list[int]:
    return [example.input_ids[at] for at in example.supervised]


def test_explicit_alignment_learns_every_ad_once(data: TrainingData, encoder: PromptEncoder) -> None:
    made = explicit.examples(data, encoder)
    answers = [encoder.vocabulary.sid_ids(data.sid_of(ad.ad_id)) for ad in data.ads]  # type: ignore[arg-type]
    assert [supervised_ids(example) for example in made] == answers


def test_one_pass_supervises_every_ad_of_the_sequence_and_the_response(
    data: TrainingData, encoder: PromptEncoder
) -> None:
    made = main.examples(data, encoder)
    users = [user for user, positions in enumerate(data.targets) if positions]
    assert len(made) == len(users)
    for user, example in zip(users, made, strict=True):
        learned = [data.answer(user, at) for at in data.targets[user]]
        expected = [token for sid in learned for token in encoder.vocabulary.sid_ids(sid)]
        assert supervised_ids(example) == expected[-len(example.supervised) :]  # the budget drops the oldest
        assert supervised_ids(example)[-encoder.vocabulary.levels :] == list(
            example.input_ids[-encoder.vocabulary.levels :]
        )


def test_the_papers_template_makes_one_example_a_target(paper_data: TrainingData, encoder: PromptEncoder) -> None:
    made = main.examples(paper_data, encoder)
    assert len(made) == sum(map(len, paper_data.targets))
    assert {len(example.supervised) for example in made} == {encoder.vocabulary.levels}


def test_without_reuse_the_newest_target_alone_is_learned(data: TrainingData, encoder: PromptEncoder) -> None:
    once = dataclasses.replace(data, recipe=_without_reuse(data))
    made = main.examples(once, encoder)
    users = [user for user, positions in enumerate(data.targets) if positions]
    assert [supervised_ids(example) for example in made] == [
        encoder.vocabulary.sid_ids(data.answer(user, data.targets[user][-1])) for user in users
    ]


def test_implicit_alignment_has_no_sid_in_its_prompts(data: TrainingData, encoder: PromptEncoder) -> None:
    levels = encoder.vocabulary.levels
    made = implicit.examples(data, encoder)
    assert len(made) == sum(min(len(positions), implicit.TARGETS_A_USER) for positions in data.targets)
    for example in made:
        assert all(encoder.vocabulary.level_of(token) is None for token in example.input_ids[:-levels])


def test_held_out_ads_and_what_follows_are_in_no_prompt(data: TrainingData) -> None:
    for user, positions in enumerate(data.targets):
        ads = [at for at, row in enumerate(data.sequences[user]) if row.domain is Domain.AD]
        for at in positions:
            context = data.contexts.context(user, at, data.sequences[user][at].occurred_at)
            assert len(context.behaviors) <= at < ads[-2]


def test_a_target_outside_the_index_is_named(data: TrainingData) -> None:
    empty = dataclasses.replace(data, sid_of=lambda _: None)
    user = next(user for user, positions in enumerate(data.targets) if positions)
    with pytest.raises(UnknownAd, match="not in the index"):
        empty.answer(user, data.targets[user][0])


def test_labels_are_the_supervised_ids_and_ignored_elsewhere() -> None:
    rows = to_dataset([Example(input_ids=(7, 8, 9), supervised=(1,)), Example(input_ids=(4, 5), supervised=(0, 1))])
    assert [row["labels"].tolist() for row in rows] == [[-100, 8, -100], [4, 5]]
    assert rows[0]["input_ids"].dtype == np.int64


def test_the_corpus_holds_the_text_of_prompts_and_nothing_else(data: TrainingData) -> None:
    texts = list(corpus(data, users=3))
    user = next(user for user, positions in enumerate(data.targets) if positions)
    head = data.prompt(user, data.targets[user][-1]).head
    assert {segment.text for segment in head if isinstance(segment, Text)} <= set(texts)
    assert sum("what is the corresponding ad?" in text for text in texts) == len(data.ads)


def test_stages_follow_the_recipes_order_and_mix_the_tasks_of_a_stage(
    data: TrainingData, encoder: PromptEncoder, recipe: Recipe
) -> None:
    mixed = SftRecipe(curriculum=(("explicit", "implicit"), ("main",)), epochs=(2.0, 1.0))
    first, second = stages(mixed, data, encoder)
    assert (first.name, second.name, first.epochs) == ("explicit + implicit", "main", 2.0)
    assert len(first.examples) == len(explicit.examples(data, encoder)) + len(implicit.examples(data, encoder))


def _without_reuse(data: TrainingData):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(data.recipe, reuse_positives=False)
