"""Unfinished trainings: what a killed training needs to go on, in a folder beside the release it will become.

LEADRE §4.3.1. `.<release>.training/` holds what is being trained, for each finished stage its weights, and for the
running one the trainer's newest checkpoint: weights, AdamW's moments, scheduler, random numbers, place in the data.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from leadre.artifacts import MANIFEST, open_artifact, write_artifact
from leadre.errors import ConfigError
from leadre.training.data.examples import Example
from leadre.training.run.progress import CurvePoint

KIND = "stage"
WEIGHTS, CURVE, PLAN, STATE = "weights.safetensors", "curve.json", "plan.json", "trainer_state.json"
_DIGEST_EXAMPLES = 4096  # hashed at a time


def claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """Open the folder of an unfinished training, or start one.

    Args:
        folder: of the training.
        plan: JSON values that decide what is trained.

    Raises:
        ConfigError: the training in it has another plan.
    """
    wanted = json.loads(json.dumps(plan))
    try:
        found = json.loads((folder / PLAN).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # killed before its first step
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PLAN).write_text(json.dumps(wanted, indent=1))
        return
    different = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if different:
        raise ConfigError(
            f"{folder} holds an unfinished training with another {', '.join(different)}: go on with what it was "
            "started with, give this one its own name, or remove the folder"
        )


def digest(examples: Sequence[Example]) -> str:
    """Return a fingerprint of examples: their tokens, and which of them are supervised."""
    made = hashlib.sha256()
    for start in range(0, len(examples), _DIGEST_EXAMPLES):
        numbers: list[int] = []
        for example in examples[start : start + _DIGEST_EXAMPLES]:
            numbers += (len(example.input_ids), *example.input_ids, len(example.supervised), *example.supervised)
        made.update(np.array(numbers, "<i4").tobytes())
    return made.hexdigest()


def newest_checkpoint(stage: Path) -> Path | None:
    """Return the newest whole checkpoint of a stage; the trainer writes its state last."""
    for folder in sorted(stage.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((folder / STATE).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        return folder
    return None


def write_progress(folder: Path, model: PreTrainedModel, *, curve: Sequence[CurvePoint]) -> None:
    """Write the weights that are trained, in safetensors, and the curve so far."""
    write_weights(folder / WEIGHTS, model)
    (folder / CURVE).write_text(json.dumps([point.plain() for point in curve]))


def read_progress(folder: Path, model: PreTrainedModel) -> list[CurvePoint]:
    """Give a model the weights that `write_progress` wrote, and return the curve so far."""
    read_weights(folder / WEIGHTS, model)
    return [CurvePoint(**point) for point in json.loads((folder / CURVE).read_text())]


def write_weights(file: Path, model: PreTrainedModel) -> None:
    """Write the weights that are trained, in safetensors, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}")
    save_file({name: value.detach() for name, value in model.named_parameters() if value.requires_grad}, unfinished)
    unfinished.replace(file)


def read_weights(file: Path, model: PreTrainedModel) -> None:
    """Give a model the weights that `write_weights` wrote; the rest does not change in training."""
    model.load_state_dict(load_file(file), strict=False)


def finish(stage: Path, model: PreTrainedModel, *, curve: Sequence[CurvePoint]) -> None:
    """Keep what a finished stage leaves to the next ones, and nothing else of it."""
    write_artifact(
        finished_of(stage), kind=KIND, facts={}, write=lambda folder: write_progress(folder, model, curve=curve)
    )
    shutil.rmtree(stage, ignore_errors=True)


def read_finished(stage: Path, model: PreTrainedModel) -> list[CurvePoint] | None:
    """Give a model what a stage left and return the stage's curve; None when it is not finished.

    Raises:
        ArtifactIncomplete: a file of it is missing or altered.
    """
    folder = finished_of(stage)
    if not (folder / MANIFEST).exists():
        return None
    open_artifact(folder, kind=KIND)
    return read_progress(folder, model)


def finished_of(stage: Path) -> Path:
    """Return where a finished stage keeps its weights."""
    return stage.with_name(f"{stage.name}.finished")
