"""Going on after a kill: the same weights, the same curve, nothing twice; and only with what it was started with."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted
from leadre.errors import ArtifactIncomplete, ConfigError
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.recipe import CollaborativeRecipe, DistilRecipe, Recipe, SasRecRecipe
from leadre.training.data.examples import Example, TrainingData
from leadre.training.fine_tune import fine_tune
from leadre.training.learner.learner import Learner
from leadre.training.run.checkpoint import claim, digest, newest_checkpoint
from leadre.training.run.progress import CurvePoint
from leadre.training.teacher.make import teacher_rows
from leadre.training.teacher.positions import positions_of

Train = Callable[..., tuple[list[CurvePoint], dict[str, torch.Tensor]]]


class Killed(Exception):
    """The training's process dies."""


@pytest.fixture
def train(learner: Learner, data: TrainingData, recipe: Recipe, tmp_path: Path) -> Train:
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}

    def train(
        name: str,
        *,
        killed_at: tuple[str, int] | None = None,
        rank: int = 0,
        optimizer: str = "adamw",
        every: int = 4,
        done: list[tuple[str, int]] | None = None,
    ) -> tuple[list[CurvePoint], dict[str, torch.Tensor]]:
        learner.model.load_state_dict(initial)

        def progress(what: str, step: int, _: int | None) -> None:
            place = (what.removeprefix("train: "), step)
            if done is not None:
                done.append(place)
            if place == killed_at:
                raise Killed

        wanted = msgspec.structs.replace(
            recipe,
            model=msgspec.structs.replace(recipe.model, lora_rank=rank),
            sft=msgspec.structs.replace(
                recipe.sft,
                curriculum=(("explicit",), ("main",)),
                checkpoint_steps=every,
                epochs=(1.5, 2.5),
                optimizer=optimizer,
            ),
        )
        curve, _ = fine_tune(learner, data, recipe=wanted, start="here", work=tmp_path / name, progress=progress)
        return curve, {key: value.clone() for key, value in learner.model.state_dict().items()}

    return train


def test_a_training_killed_three_times_ends_with_the_weights_and_the_curve_of_one_that_was_not(train: Train) -> None:
    curve, weights = train("whole", every=0)
    for place in (("explicit", 2), ("explicit", 9), ("main", 5)):  # before any checkpoint, in epoch 2, in stage 2
        with pytest.raises(Killed):
            train("killed", killed_at=place)
    went_on: list[tuple[str, int]] = []
    resumed, same = train("killed", done=went_on)
    assert went_on == [("main", 4), ("main", 5)]
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    for mine, other in zip(resumed, curve, strict=True):
        assert (mine.stage, mine.step, mine.loss, mine.learning_rate, mine.accuracy) == (
            other.stage, other.step, other.loss, other.learning_rate, other.accuracy,
        )  # fmt: skip
    assert [point.seconds for point in resumed[:9]] == sorted(point.seconds for point in resumed[:9])


def test_a_killed_training_by_muon_goes_on_too(train: Train) -> None:
    _, weights = train("whole", optimizer="muon")
    with pytest.raises(Killed):
        train("killed", optimizer="muon", killed_at=("main", 5))
    _, same = train("killed", optimizer="muon")
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_killed_adapters_go_on_too_and_a_finished_training_is_not_repeated(train: Train, tmp_path: Path) -> None:
    _, weights = train("whole", rank=3)
    with pytest.raises(Killed):
        train("killed", rank=3, killed_at=("explicit", 5))
    checkpoint = newest_checkpoint(tmp_path / "killed" / "0-explicit")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"
    resumed, same = train("killed", rank=3)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    steps: list[tuple[str, int]] = []
    again, last = train("killed", rank=3, done=steps)
    assert (steps, again) == ([], resumed)
    assert all(torch.equal(weights[name], last[name]) for name in weights)


def test_a_killed_training_with_a_teacher_a_mean_of_the_weights_and_dropout_goes_on_too(
    learner: Learner, data: TrainingData, index: AdIndex, recipe: Recipe, tmp_path: Path
) -> None:
    initial = {name: value.clone() for name, value in learner.model.state_dict().items()}
    train = positions_of(data, index=index).histories
    sasrec = SasRecRecipe(width=8, layers=1, heads=2, positions=20, epochs=2, batch_size=16)
    signal = Collaborative.fit(
        train, targets=np.full(len(train), ABSENT), recipe=CollaborativeRecipe(sasrec=sasrec), seed=4
    )
    fitted = []

    def once() -> CrossFitted:
        fitted.append(signal)
        return CrossFitted(signal=signal)

    def attempt(name: str, *, average: float = 0.9, killed_at: int | None = None) -> dict[str, torch.Tensor]:
        learner.model.load_state_dict(initial)

        def progress(_: str, step: int, __: int | None) -> None:
            if step == killed_at:
                raise Killed

        sft = msgspec.structs.replace(
            recipe.sft,
            curriculum=(("main",),),
            epochs=(2.5,),
            checkpoint_steps=2,
            average=average,
            distil=DistilRecipe(weight=0.5, temperature=1.5),
        )
        wanted = msgspec.structs.replace(recipe, sft=sft, model=msgspec.structs.replace(recipe.model, dropout=0.2))
        fine_tune(
            learner,
            data,
            recipe=wanted,
            start="here",
            work=tmp_path / name,
            teach=partial(teacher_rows, teacher=once, index=index, temperature=1.5),
            progress=progress,
        )
        return {key: value.clone() for key, value in learner.model.state_dict().items()}

    weights = attempt("whole")
    with pytest.raises(Killed):
        attempt("killed", killed_at=3)
    resumed = attempt("killed")
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert len(fitted) == 2  # not again for the second half
    last = attempt("last", average=0.0)
    assert any(not torch.equal(weights[name], last[name]) for name in weights)


def test_only_the_same_training_goes_on(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train("mine", killed_at=("explicit", 1))
    with pytest.raises(ConfigError, match=r"mine holds an unfinished training with another model\.lora_rank: "):
        train("mine", rank=2)
    with pytest.raises(Killed):
        train("mine", every=3, killed_at=("explicit", 1))  # how often to write may change
    plan = json.loads((tmp_path / "mine" / "plan.json").read_text())
    (tmp_path / "mine" / "plan.json").write_text(json.dumps(plan | {"examples of main": "other"}))
    with pytest.raises(ConfigError, match="another examples of main"):
        train("mine")


def test_a_damaged_stage_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train("mine", killed_at=("main", 1))
    (tmp_path / "mine" / "0-explicit.finished" / "weights.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactIncomplete, match=r"weights\.safetensors"):
        train("mine")


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name, state in (("checkpoint-9", "{}"), ("checkpoint-10", "{}"), ("checkpoint-11", '{"glob'), ("tmp-12", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-12").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_plan_half_written_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"a":')
    claim(tmp_path, {"a": (1, 2)})
    claim(tmp_path, {"a": (1, 2)})
    with pytest.raises(ConfigError, match="another a, b"):
        claim(tmp_path, {"a": (1, 3), "b": 0})


EXAMPLES = st.lists(
    st.tuples(st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=2)).map(
        lambda made: Example(input_ids=tuple(made[0]), supervised=tuple(made[1]))
    ),
    max_size=4,
)


@given(EXAMPLES, EXAMPLES)
def test_a_digest_tells_examples_apart(mine: list[Example], other: list[Example]) -> None:
    assert (digest(mine) == digest(other)) == (mine == other)
