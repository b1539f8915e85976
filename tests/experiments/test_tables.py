"""The tables: figures as the paper prints them, and curricula of equal size."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from leadre.errors import ConfigError
from leadre.experiments import table1, table2
from leadre.recipe import Recipe, SftRecipe, Stage

PRINTED = (
    (table1.PAPER, table1.FULL, table1.NO_CONTENT, (-13.60, -14.28, -12.26, -14.19, -13.15)),
    (table1.PAPER, table1.FULL, table1.NO_SUMMARY, (-0.62, -1.54, +1.08, -1.52, -0.18)),
    (table2.PAPER, table2.EX_IM_MAIN, table2.EX_MAIN, (-1.71, -2.74, -3.09, -2.50, -2.67)),
    (table2.PAPER, table2.EX_IM_MAIN, table2.MIX_ALL, (-4.60, -5.43, -2.55, -5.39, -3.90)),
    (table2.PAPER, table2.EX_IM_MAIN, table2.MIX_EX, (-1.91, -5.84, -5.49, -4.64, -4.59)),
    (table2.PAPER, table2.EX_IM_MAIN, table2.MAIN, (-9.42, -10.32, -8.87, -10.16, -9.42)),
)


@pytest.mark.parametrize(("paper", "first", "row", "changes"), PRINTED)
def test_the_papers_figures_give_the_papers_percentages(
    paper: dict[str, dict[str, float]], first: str, row: str, changes: tuple[float, ...]
) -> None:
    for metric, change in zip(table1.METRICS, changes, strict=True):
        assert 100 * (paper[row][metric] / paper[first][metric] - 1) == pytest.approx(change, abs=0.12)


def passes(recipe: SftRecipe) -> dict[Stage, float]:
    """How often each task's samples are gone through."""
    found: dict[Stage, float] = {}
    for tasks, epochs in zip(recipe.curriculum, recipe.epochs, strict=True):
        for task in tasks:
            found[task] = found.get(task, 0.0) + epochs
    return found


@pytest.mark.parametrize("epochs", [(10.0, 1.0, 6.0), (3.0, 3.0, 3.0), (3.0, 0.3, 12.0)])
def test_curricula_differ_in_order_and_not_in_size(epochs: tuple[float, ...]) -> None:
    made = table2.curricula(SftRecipe(epochs=epochs, validate_users=9, patience=2))
    assert list(made) == list(table2.PAPER)
    assert [passes(sft)["main"] for sft in made.values()] == pytest.approx([epochs[2]] * 5)
    assert passes(made[table2.EX_IM_MAIN]) == dict(zip(("explicit", "implicit", "main"), epochs, strict=True))
    assert set(passes(made[table2.MIX_EX])) == {"main", "explicit"}
    assert passes(made[table2.MIX_ALL])["explicit"] == pytest.approx(epochs[0], rel=0.25)
    for sft in made.values():
        Recipe(name="checked", sft=sft)
        assert (sft.validate_users, sft.patience) == (0, 0)
    assert [len(sft.curriculum) for sft in made.values()] == [3, 2, 1, 1, 1]


def test_a_recipe_without_one_of_the_tasks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no explicit, implicit"):
        table2.curricula(replace(SftRecipe(), curriculum=(("main",),), epochs=(2.0,)))
