"""The curriculum: which tasks in which order. LEADRE §4.3.1, Table 2."""

from __future__ import annotations

from collections.abc import Callable

from leadre.prompts.fit_length import PromptEncoder
from leadre.recipe import SftRecipe
from leadre.training.data.examples import Example, TrainingData
from leadre.training.data.tasks import explicit, implicit, main
from leadre.training.objectives.sft import Stage

_TASKS: dict[str, Callable[[TrainingData, PromptEncoder], list[Example]]] = {
    "explicit": explicit.examples,
    "implicit": implicit.examples,
    "main": main.examples,
}


def stages(
    recipe: SftRecipe, data: TrainingData, encoder: PromptEncoder, *, lessons: TrainingData | None = None
) -> list[Stage]:
    """Return the stages in order; the tasks of one stage are mixed. A task's examples are made once.

    A task that a stage names n times counts n times in it. The main task learns from `lessons`, where there are some.
    """
    tasks = {task for stage in recipe.curriculum for task in stage}
    made = {task: _TASKS[task](lessons if lessons and task == "main" else data, encoder) for task in tasks}
    return [
        Stage(
            name=" + ".join(dict.fromkeys(tasks)),
            examples=[example for task in tasks for example in made[task]],
            epochs=epochs,
        )
        for tasks, epochs in zip(recipe.curriculum, recipe.epochs, strict=True)
    ]
