"""Validation while training: the best pass is kept, patience ends, and a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.validate import validation_of
from leadre.recipe import Recipe, decode_recipe
from leadre.training.data.examples import Example, TrainingData
from leadre.training.fine_tune import fine_tune
from leadre.training.learner.learner import Learner
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.progress import CurvePoint
from leadre.training.run.validation import Validation

ABSENT, HIT = -1, 7
Train = Callable[..., tuple[list[CurvePoint], Validation]]


class Killed(Exception):
    """The training's process dies."""


@pytest.fixture
def scripted(learner: Learner, recipe: Recipe, tmp_path: Path) -> Callable[..., tuple[list[CurvePoint], int]]:
    """Train 8 steps a pass, with the answer at the given ranks after each, and return the curve and the pass kept."""

    def run(ranks: list[int], *, passes: float, patience: int) -> tuple[list[CurvePoint], int]:
        after: list[torch.Tensor] = []

        def lists() -> np.ndarray:
            found = np.full((1, 12), ABSENT)
            found[0, ranks[len(after)]] = HIT
            after.append(weights.detach().clone())
            return found

        weights = learner.model.get_input_embeddings().weight
        examples = [
            Example(input_ids=(start, start + 1, start + 2), supervised=(1, 2))
            for start in range(learner.vocabulary.size - 2 - 60, learner.vocabulary.size - 2)
        ]
        points = run_stage(
            learner.model,
            Stage(name="main", examples=examples, epochs=passes),
            recipe=msgspec.structs.replace(recipe.sft, batch_size=8, level_loss=False),
            tokenizer=learner.tokenizer,
            code_blocks=learner.code_blocks,
            work=tmp_path,
            validation=Validation(lists=lists, answers=np.array([HIT]), patience=patience),
        )
        return points, next(at for at, then in enumerate(after) if torch.equal(then, weights))

    return run


def test_training_stops_without_gain_and_keeps_the_best_pass(
    scripted: Callable[..., tuple[list[CurvePoint], int]],
) -> None:
    points, kept = scripted([11, 4, 2, 2, 11, 0], passes=6.0, patience=2)
    validated = [(point.step, point.hr_10, point.ndcg_10) for point in points if point.hr_10 is not None]
    assert validated == [(8, 0.0, 0.0), (16, 1.0, 0.386853), (24, 1.0, 0.5), (32, 1.0, 0.5), (40, 0.0, 0.0)]
    assert points[-1].step == 40
    assert kept == 2


def test_without_patience_all_passes_are_trained_and_part_of_one_counts(
    scripted: Callable[..., tuple[list[CurvePoint], int]],
) -> None:
    points, kept = scripted([3, 5, 9, 1], passes=3.5, patience=0)
    assert [point.step for point in points if point.hr_10 is not None] == [8, 16, 24, 28]
    assert kept == 3


@pytest.fixture
def train(learner: Learner, data: TrainingData, index: AdIndex, recipe: Recipe, tmp_path: Path) -> Train:
    """One stage, validated through the decoder after every second step; a checkpoint every 3."""
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}
    ads = [[at for at, row in enumerate(rows) if row.item_id in set(index.ad_ids.tolist())] for rows in data.sequences]
    data = replace(data, validation=[(user, at[-2]) for user, at in enumerate(ads) if len(at) > 2])

    def run(
        name: str, *, rank: int, killed_at: int = -1, every: int = 3, score: str = "level"
    ) -> tuple[list[CurvePoint], Validation]:
        learner.model.load_state_dict(initial)
        wanted = msgspec.structs.replace(
            recipe,
            model=msgspec.structs.replace(recipe.model, lora_rank=rank),
            decoding=msgspec.structs.replace(recipe.decoding, score=score),
            sft=msgspec.structs.replace(
                recipe.sft,
                curriculum=(("main",),),
                epochs=(6.0,),
                learning_rate=3e-2 if rank else 8e-3,
                checkpoint_steps=every,
                validate_users=31,
                patience=3,
            ),
        )

        def progress(what: str, step: int, _: int | None) -> None:
            if (what, step) == ("train: main", killed_at):
                raise Killed

        validation = validation_of(learner, data, index=index, recipe=wanted)
        assert validation is not None
        assert len(validation.answers) == 31
        curve, _ = fine_tune(
            learner, data, recipe=wanted, start="here", work=tmp_path / name, validation=validation, progress=progress
        )
        return curve, validation

    return run


@pytest.mark.parametrize("rank", [0, 3])
def test_a_killed_validated_training_ends_as_one_that_was_not_with_what_was_measured(
    train: Train, learner: Learner, rank: int
) -> None:
    curve, validation = train("whole", rank=rank, every=0)
    weights = {name: value.clone() for name, value in learner.model.state_dict().items()}
    with pytest.raises(Killed):
        train("killed", rank=rank, killed_at=7)  # goes on from 6, where a pass ended
    resumed, _ = train("killed", rank=rank)
    of_whole, of_killed = (
        [(point.stage, point.step, point.loss, point.hr_10, point.ndcg_10) for point in points]
        for points in (curve, resumed)
    )
    assert of_whole == of_killed
    assert all(torch.equal(weights[name], value) for name, value in learner.model.state_dict().items())
    best = max((hr, gain) for *_, hr, gain in of_whole if hr is not None)
    assert validation.measure() == pytest.approx(best, abs=1e-6)


def test_only_with_the_same_score_does_a_validated_training_go_on(train: Train) -> None:
    with pytest.raises(Killed):
        train("mine", rank=0, killed_at=1)
    with pytest.raises(ConfigError, match=r"another decoding\.score: "):
        train("mine", rank=0, score="raw")


def test_without_held_out_ads_validation_is_refused(
    learner: Learner, data: TrainingData, index: AdIndex, recipe: Recipe
) -> None:
    wanted = msgspec.structs.replace(recipe, sft=msgspec.structs.replace(recipe.sft, validate_users=9))
    assert validation_of(learner, data, index=index, recipe=recipe) is None
    with pytest.raises(InvalidInput, match=r"sft\.validate_users=9, but no user has enough"):
        validation_of(learner, data, index=index, recipe=wanted)


def test_patience_without_validation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sft\.patience=2 needs sft\.validate_users above 0"):
        decode_recipe({"name": "x", "sft": {"patience": 2}}, source="here")
