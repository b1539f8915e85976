"""Table 2: what the alignment tasks are worth, and their order. LEADRE §5.2.2."""

from __future__ import annotations

from typing import get_args

from msgspec.structs import replace

from leadre.errors import ConfigError
from leadre.experiments.ablation import Trials, Variant, fine_tuned, run_variants
from leadre.experiments.result import Experiment, tabulate
from leadre.recipe import Recipe, SftRecipe, Stage

METRICS = ("HR@1", "HR@4", "HR@8", "NDCG@4", "NDCG@8")
EX_IM_MAIN, EX_MAIN, MAIN = "EX → IM → Main", "EX → Main", "Main only"
MIX_ALL, MIX_EX = "Main+IM+EX mix", "Main+EX mix"
PAPER = {
    EX_IM_MAIN: dict(zip(METRICS, (0.0780, 0.1610, 0.2062, 0.1232, 0.1391), strict=True)),
    EX_MAIN: dict(zip(METRICS, (0.0767, 0.1566, 0.1998, 0.1201, 0.1354), strict=True)),
    MIX_ALL: dict(zip(METRICS, (0.0745, 0.1523, 0.2009, 0.1165, 0.1337), strict=True)),
    MIX_EX: dict(zip(METRICS, (0.0766, 0.1516, 0.1948, 0.1174, 0.1327), strict=True)),
    MAIN: dict(zip(METRICS, (0.0707, 0.1444, 0.1879, 0.1107, 0.1260), strict=True)),
}
"""Table 2 as printed."""
MOST_REPEATS = 10
"""Of one task's examples in a mixed stage."""


def table2(recipe: Recipe, trials: Trials) -> tuple[Experiment]:
    """Train the five curricula.

    Every row sees the main task's samples equally often, and the other tasks', where it has them, as often as the
    first row does, up to rounding (see `curricula`): rows differ in the tasks and their order alone. So nothing is
    stopped early.

    Raises:
        ConfigError: the recipe does not say how often each task is gone through.
        InvalidInput, Unavailable: as `run_variants`.
    """
    tuned = fine_tuned(recipe)
    plans = {row: replace(tuned, sft=sft) for row, sft in curricula(recipe.sft).items()}
    found = tabulate(
        run_variants({row: Variant(recipe=plan) for row, plan in plans.items()}, trials),
        name="table2",
        title="Table 2: tuning tasks and their order",
        note="before business alignment; every row sees the main task's samples equally often",
        seeds=trials.seeds,
        metrics=METRICS,
        paper=PAPER,
        pairs=[(EX_MAIN, MIX_EX), (EX_IM_MAIN, MIX_ALL), (EX_IM_MAIN, MAIN), (EX_MAIN, MAIN)],
        seed=recipe.evaluation.seed,
    )
    return (found,)


def curricula(recipe: SftRecipe) -> dict[str, SftRecipe]:
    """Return the table's five curricula, with each task's epochs those of the recipe.

    A mixed stage goes through all its examples equally often; so a task with more epochs is named in it more often, up
    to `MOST_REPEATS` times.

    Raises:
        ConfigError: a task is in no stage of the recipe.
    """
    epochs = dict.fromkeys(get_args(Stage), 0.0)
    for tasks, passes in zip(recipe.curriculum, recipe.epochs, strict=True):
        for task in tasks:
            epochs[task] += passes
    recipe = replace(recipe, validate_users=0, patience=0)
    missing = [task for task, passes in epochs.items() if not passes]
    if missing:
        raise ConfigError(
            f"table 2 needs the epochs of all tasks, sft.curriculum has no {', '.join(missing)}; "
            "take a recipe with all three, such as recipes/demo.toml"
        )

    def in_order(*tasks: Stage) -> SftRecipe:
        return replace(recipe, curriculum=tuple((task,) for task in tasks), epochs=tuple(epochs[t] for t in tasks))

    def mixed(*tasks: Stage) -> SftRecipe:
        most = max(epochs[task] for task in tasks)
        unit = max(min(epochs[task] for task in tasks), most / MOST_REPEATS)
        repeats = {task: max(1, round(epochs[task] / unit)) for task in tasks}
        stage = tuple(task for task in tasks for _ in range(repeats[task]))
        return replace(recipe, curriculum=(stage,), epochs=(epochs["main"] / repeats["main"],))

    return {
        EX_IM_MAIN: in_order("explicit", "implicit", "main"),
        EX_MAIN: in_order("explicit", "main"),
        MIX_ALL: mixed("main", "implicit", "explicit"),
        MIX_EX: mixed("main", "explicit"),
        MAIN: in_order("main"),
    }
