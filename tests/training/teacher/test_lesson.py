"""What the training head makes of the teacher: soft targets, or an offset of the logits; both templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from leadre.domain.behavior import Domain
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.fit_length import PromptEncoder
from leadre.recipe import DistilRecipe, Recipe
from leadre.training.data.examples import NO_TARGETS, Example, TrainingData, to_dataset
from leadre.training.data.tasks import main
from leadre.training.learner.learner import Learner
from leadre.training.objectives.head import IGNORED, attach_head
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.progress import CurvePoint
from leadre.training.teacher.lesson import Lesson
from leadre.training.teacher.positions import positions_of
from leadre.training.teacher.rows import TeacherRows


def batch(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(example.input_ids) for example in examples)
    ids, labels = torch.zeros(len(examples), longest, dtype=torch.long), torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        at = torch.tensor(example.supervised)
        labels[row, at] = ids[row, at]
    return ids, labels, torch.tensor([example.first_target for example in examples])


@pytest.mark.parametrize("template", ["one_pass", "paper"])
def test_every_supervised_ad_has_its_own_row_of_the_teacher(
    template: str,
    data: TrainingData,
    paper_data: TrainingData,
    encoder: PromptEncoder,
    index: AdIndex,
    teacher: TeacherRows,
) -> None:
    mine = data if template == "one_pass" else paper_data
    positions = positions_of(mine, index=index)
    assert positions.histories.items[positions.place].tolist() == [
        mine.sequences[user][at].item_id for user, targets in enumerate(mine.targets) for at in targets
    ]
    assert all(mine.sequences[user][at].domain is Domain.AD for user, at_all in enumerate(mine.targets) for at in at_all)
    levels, offsets = teacher.levels, encoder.vocabulary.level_offsets
    for example in main.examples(mine, encoder):
        first = example.first_target
        codes = [example.input_ids[at] for at in example.supervised]
        for number in range(0, len(codes), levels):
            leaf = int(positions.leaf[first + number // levels])
            assert codes[number : number + levels] == [
                code + offset for code, offset in zip(index.codes[leaf].tolist(), offsets, strict=True)
            ]


@pytest.mark.parametrize("level_loss", [True, False])
def test_the_loss_is_the_hard_one_and_the_soft_one_in_their_shares(
    level_loss: bool,  # noqa: FBT001 - a parameter of the test
    data: TrainingData,
    learner: Learner,
    teacher: TeacherRows,
) -> None:
    examples = main.examples(data, learner.encoder)[:5]
    examples[2] = without_teacher(examples[2])
    ids, labels, first_target = batch(examples)
    logits = learner.model(input_ids=ids).logits.detach()
    lesson = Lesson(rows=teacher, blocks=learner.code_blocks, weight=0.7, beside=0.0)
    attach_head(learner.model, blocks=learner.code_blocks if level_loss else (), lesson=lesson)
    with torch.no_grad():
        out = learner.model(input_ids=ids, labels=labels, first_target=first_target, fused_lm_head=True)
    for row, example in enumerate(examples):
        for number, at in enumerate(example.supervised):
            level = number % teacher.levels
            begin, count = learner.code_blocks[level]
            scored = logits[row, at - 1]
            log_p = (scored[begin : begin + count] if level_loss else scored).log_softmax(0)
            shift = begin if level_loss else 0
            hard = float(log_p[example.input_ids[at] - shift])
            wanted = hard
            if example.first_target != NO_TARGETS:
                _, code, logs = teacher.read(np.array([example.first_target * teacher.levels + number]))
                soft = sum(
                    float(np.exp(said)) * float(log_p[c + begin - shift])
                    for c, said in zip(code.tolist(), logs.tolist(), strict=True)
                )
                wanted = 0.3 * hard + 0.7 * soft
            assert float(out.log_probs[row, at - 1]) == pytest.approx(wanted, rel=2e-3, abs=2e-3)


def without_teacher(example: Example) -> Example:
    """The same sample without a teacher, as of another task."""
    return Example(input_ids=example.input_ids, supervised=example.supervised)


def test_beside_the_signal_its_logarithms_are_added_and_missing_codes_count_as_its_least_likely_one(
    data: TrainingData, learner: Learner, teacher: TeacherRows
) -> None:
    examples = main.examples(data, learner.encoder)[:4]
    ids, labels, first_target = batch(examples)
    logits = learner.model(input_ids=ids).logits.detach()
    lesson = Lesson(rows=teacher, blocks=learner.code_blocks, weight=0.0, beside=0.5)
    attach_head(learner.model, blocks=learner.code_blocks, lesson=lesson)
    with torch.no_grad():
        out = learner.model(input_ids=ids, labels=labels, first_target=first_target, fused_lm_head=True)
    for row, example in enumerate(examples):
        for number, at in enumerate(example.supervised):
            begin, count = learner.code_blocks[number % teacher.levels]
            _, code, logs = teacher.read(np.array([example.first_target * teacher.levels + number]))
            offset = torch.full((count,), float(logs.min()))
            offset[torch.from_numpy(code)] = torch.from_numpy(logs)
            log_p = (logits[row, at - 1, begin : begin + count] + 0.5 * offset).log_softmax(0)
            wanted = float(log_p[example.input_ids[at] - begin])
            assert float(out.log_probs[row, at - 1]) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


@pytest.fixture
def train(
    learner: Learner, data: TrainingData, recipe: Recipe, teacher: TeacherRows, tmp_path: Path
) -> Callable[..., tuple[list[CurvePoint], dict[str, torch.Tensor]]]:
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}

    def train(*, taught: TeacherRows | None, **changes: object) -> tuple[list[CurvePoint], dict[str, torch.Tensor]]:
        learner.model.load_state_dict(initial)
        points = run_stage(
            learner.model,
            Stage(name="main", examples=main.examples(data, learner.encoder), epochs=3.0),
            recipe=msgspec.structs.replace(recipe.sft, **changes),
            tokenizer=learner.tokenizer,
            code_blocks=learner.code_blocks,
            work=tmp_path,
            teacher=taught,
        )
        return points, {key: value.clone() for key, value in learner.model.state_dict().items()}

    return train


def test_a_teacher_without_weight_changes_no_bit(
    train: Callable[..., tuple[list[CurvePoint], dict[str, torch.Tensor]]], teacher: TeacherRows
) -> None:
    _, plain = train(taught=None)
    _, same = train(taught=teacher)
    assert all(torch.equal(plain[name], same[name]) for name in plain)


def test_a_model_comes_closer_to_its_teacher_and_one_beside_it_further_from_it(
    train: Callable[..., tuple[list[CurvePoint], dict[str, torch.Tensor]]],
    learner: Learner,
    data: TrainingData,
    teacher: TeacherRows,
) -> None:
    ids, labels, first_target = batch(main.examples(data, learner.encoder))
    lesson = Lesson(rows=teacher, blocks=learner.code_blocks, weight=1.0, beside=0.0)

    def distance() -> float:
        attach_head(learner.model, blocks=learner.code_blocks, lesson=lesson)
        with torch.no_grad():
            out = learner.model(input_ids=ids, labels=labels, first_target=first_target, fused_lm_head=True)
        return -float(out.log_probs.sum())

    away = []
    for changes in ({"distil": DistilRecipe(weight=0.9)}, {}, {"objective": "beside_signal"}):
        train(taught=teacher, **changes)
        away.append(distance())
    assert away == sorted(away)


def test_numbers_of_targets_travel_only_when_there_is_a_teacher(data: TrainingData, encoder: PromptEncoder) -> None:
    examples = main.examples(data, encoder)[:3]
    assert to_dataset(examples).column_names == ["input_ids", "labels"]
    numbered = to_dataset(examples, targets="number")
    assert [int(row["first_target"]) for row in numbered] == [example.first_target for example in examples]
