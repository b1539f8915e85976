"""Fine-tuning through all stages of the curriculum, whole weights or adapters, in one go or across kills.

LEADRE §4.3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leadre.recipe import Recipe, encode_recipe
from leadre.training.curriculum import stages
from leadre.training.data.examples import TrainingData
from leadre.training.data.thinned import thinned
from leadre.training.learner.adapters import adapted
from leadre.training.learner.dropout import dropping_out
from leadre.training.learner.learner import Learner
from leadre.training.objectives.sft import Stage, run_stage
from leadre.training.run.checkpoint import claim, digest
from leadre.training.run.processes import main_first
from leadre.training.run.progress import CurvePoint, Progress
from leadre.training.run.reporting import Reporting
from leadre.training.run.validation import Validation
from leadre.training.teacher.rows import TeacherRows


def fine_tune(
    learner: Learner,
    data: TrainingData,
    *,
    recipe: Recipe,
    start: str,
    work: Path,
    teach: Callable[[Path, TrainingData], TeacherRows] | None = None,
    validation: Validation | None = None,
    reporting: Reporting | None = None,
    progress: Progress | None = None,
) -> tuple[list[CurvePoint], dict[str, Any]]:
    """Train the learner's model in place.

    Args:
        learner: with the weights to start from, also when an unfinished training goes on.
        data: what the tasks make examples of.
        recipe: everything about the training.
        start: names what the learner was made of: a training goes on only from the same.
        work: folder for the trainer's files; with `recipe.sft.checkpoint_steps` the training in it goes on.
        teach: makes the teacher's rows of the main task's data in a folder, or finds them there; needed if
            `recipe.sft.taught`.
        validation: of the last stage.
        reporting: who else is told the curves.
        progress: called after each step.

    Returns:
        The curves, and for each stage its numbers of examples, tokens and supervised tokens.

    Raises:
        ConfigError: `work` holds an unfinished training with another recipe, start or data.
        ArtifactIncomplete: it is damaged.
    """
    lessons = thinned(data, copies=recipe.sft.thinned, share=recipe.sft.thinning)
    curriculum = stages(recipe.sft, data, learner.encoder, lessons=lessons)
    if recipe.sft.checkpoint_steps:
        with main_first():
            claim(work, {"start": start, **_plan(recipe, curriculum)})
    teacher = teach(work / "teacher", lessons) if recipe.sft.taught and teach is not None else None
    curves: list[CurvePoint] = []
    with (
        adapted(learner.model, recipe.model, new_tokens=learner.new_tokens, seed=recipe.sft.seed),
        dropping_out(learner.model, recipe.model.dropout),
    ):
        for number, stage in enumerate(curriculum):
            curves += run_stage(
                learner.model,
                stage,
                recipe=recipe.sft,
                tokenizer=learner.tokenizer,
                code_blocks=learner.code_blocks,
                work=work / f"{number}-{stage.name.replace(' ', '')}",
                teacher=teacher,
                validation=validation if number == len(curriculum) - 1 else None,
                reporting=reporting,
                progress=progress,
            )
    return curves, {stage.name: _sizes(stage) for stage in curriculum}


def _sizes(stage: Stage) -> dict[str, int]:
    return {
        "examples": len(stage.examples),
        "tokens": sum(len(example.input_ids) for example in stage.examples),
        "supervised_tokens": sum(len(example.supervised) for example in stage.examples),
    }


def _plan(recipe: Recipe, curriculum: Sequence[Stage]) -> dict[str, Any]:
    """Return what decides the weights; how often a checkpoint is written and who is told does not."""
    plain = encode_recipe(recipe)
    values = {f"{part}.{key}": value for part in ("prompt", "model", "sft") for key, value in plain[part].items()}
    del values["sft.checkpoint_steps"], values["sft.report_to"]
    if recipe.sft.validate_users:
        values |= {f"decoding.{key}": plain["decoding"][key] for key in ("score", "beam_width")}
    if recipe.sft.taught:
        values["collaborative.sasrec"] = plain["collaborative"]["sasrec"]
    return values | {f"examples of {stage.name}": digest(stage.examples) for stage in curriculum}
