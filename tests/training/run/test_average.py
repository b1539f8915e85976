"""The mean of the weights: what it is, that it is validated and kept, and that training itself does not feel it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from leadre.recipe import Recipe
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import explicit
from leadre.training.learner.learner import Learner
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.average import Average
from leadre.training.run.validation import Validation


def end_step(average: Average, step: int, folder: Path) -> None:
    state = TrainerState()
    state.global_step = step
    average.on_step_end(TrainingArguments(str(folder), use_cpu=True), state, TrainerControl())


def test_it_moves_by_the_decay_which_is_warmed_up(learner: Learner, tmp_path: Path) -> None:
    weight = learner.model.get_input_embeddings().weight
    start = weight.detach().clone()
    average = Average(learner.model, decay=0.5)
    with torch.no_grad():
        weight += 1.0
    end_step(average, 1, tmp_path)  # 2 / 11 of it stays
    with average.in_place():
        torch.testing.assert_close(weight.detach(), start + 9 / 11)
    torch.testing.assert_close(weight.detach(), start + 1.0)
    end_step(average, 1000, tmp_path)
    average.write(tmp_path)
    other = Average(learner.model, decay=0.5)
    other.read(tmp_path)
    other.give()
    torch.testing.assert_close(weight.detach(), start + 10 / 11)


def test_the_mean_is_validated_and_kept_and_training_goes_on_from_the_weights(
    learner: Learner, data: TrainingData, recipe: Recipe, tmp_path: Path
) -> None:
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}
    weight = learner.model.get_input_embeddings().weight
    curves, validated = [], []

    def lists() -> np.ndarray:
        validated.append(weight.detach().clone())
        return np.full((1, 10), 5 if len(validated) == 2 else 6)

    for average, validation in ((0.0, False), (0.8, False), (0.8, True)):
        learner.model.load_state_dict(initial)
        curves.append(
            run_stage(
                learner.model,
                Stage(name="explicit", examples=explicit.examples(data, learner.encoder), epochs=3.0),
                recipe=msgspec.structs.replace(recipe.sft, average=average),
                tokenizer=learner.tokenizer,
                code_blocks=learner.code_blocks,
                work=tmp_path,
                validation=Validation(lists=lists, answers=np.array([5]), patience=0) if validation else None,
            )
        )
        if validation:
            assert torch.equal(weight, validated[1])
            torch.testing.assert_close(mean, validated[2])
        mean = weight.detach().clone()
    losses = [[point.loss for point in curve] for curve in curves]
    assert losses[0] == losses[1] == pytest.approx(losses[2], abs=1e-9)
