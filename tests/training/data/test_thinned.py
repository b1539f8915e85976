"""Thinned histories: what a copy holds, and what it must not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from leadre.prompts.fit_length import PromptEncoder
from leadre.recipe import Recipe
from leadre.training.curriculum import stages
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import main
from leadre.training.data.thinned import thinned


@pytest.fixture(scope="module")
def lessons(data: TrainingData) -> TrainingData:
    return thinned(data, copies=2, share=0.3)


def test_users_come_first_as_they_are_and_nobody_is_validated_on_a_copy(
    data: TrainingData, lessons: TrainingData
) -> None:
    users = len(data.targets)
    assert lessons.targets[:users] == [list(positions) for positions in data.targets]
    assert list(lessons.sequences[:users]) == list(data.sequences)
    assert len(lessons.targets) == users + 2 * sum(len(positions) >= 3 for positions in data.targets)
    assert not lessons.validation


def test_a_copy_is_a_part_of_its_users_past_up_to_the_last_target(data: TrainingData, lessons: TrainingData) -> None:
    owners = {sequence[0].user_id: number for number, sequence in enumerate(data.sequences) if sequence}
    kept = left_out = 0
    for sequence, targets in list(zip(lessons.sequences, lessons.targets, strict=True))[len(data.targets) :]:
        owner = owners[sequence[0].user_id]
        may = data.targets[owner]
        places = iter(data.sequences[owner][: may[-1] + 1])
        assert all(behavior in places for behavior in sequence)  # in the same order
        learned = [sequence[at] for at in targets]
        stayed = [data.sequences[owner][at] for at in may if data.sequences[owner][at] in sequence]
        assert learned == stayed
        assert sequence[-1] == data.sequences[owner][may[-1]]
        kept, left_out = kept + len(sequence), left_out + may[-1] + 1 - len(sequence)
    assert 0.2 < left_out / (kept + left_out) < 0.4


def test_copies_differ_and_the_same_seed_gives_the_same(data: TrainingData, lessons: TrainingData) -> None:
    assert lessons.targets == thinned(data, copies=2, share=0.3).targets
    copies = lessons.sequences[len(data.targets) :]
    half = len(copies) // 2
    assert list(copies[:half]) != list(copies[half:])
    assert thinned(data, copies=0, share=0.3) is data


def test_only_the_main_task_learns_from_copies(
    data: TrainingData, lessons: TrainingData, encoder: PromptEncoder, recipe: Recipe
) -> None:
    sft = replace(recipe.sft, curriculum=(("implicit",), ("main",)), epochs=(1.0, 1.0))
    made = {stage.name: stage.examples for stage in stages(sft, data, encoder, lessons=lessons)}
    plain = {stage.name: stage.examples for stage in stages(sft, data, encoder)}
    assert made["implicit"] == plain["implicit"]
    assert made["main"] == main.examples(lessons, encoder)
    assert made["main"][: len(plain["main"])] == plain["main"]
    assert len(made["main"]) == sum(bool(positions) for positions in lessons.targets) > len(plain["main"])
