"""Table 6 and Figure 5 over a real database, with models of a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.experiments import figure5, table6
from leadre.experiments.ablation import Trials
from leadre.recipe import (
    DecodingRecipe,
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SftRecipe,
)
from leadre.store.importers.synthetic import import_world
from leadre.synthetic import make_world
from leadre.training.learner.release_folder import load_vocabulary

WORLD = make_world(seed=2, ads=96, users=60, sessions=5, slate=4)
RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16),
    prompt=PromptRecipe(template="one_pass", budget_tokens=400),
    model=ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=24, text_vocabulary=400),
    sft=SftRecipe(
        curriculum=(("main",),),
        epochs=(2.0,),
        learning_rate=2e-2,
        minimum_learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=8,
        device_batch_size=8,
        level_loss=True,
    ),
    dpo=DpoRecipe(enabled=False),
    decoding=DecodingRecipe(beam_width=9),
    evaluation=EvaluationRecipe(max_users=29),
)


@pytest.fixture
def trials(database_url: str, tmp_path: Path) -> Trials:
    import_world(WORLD, database_url=database_url)
    return Trials(
        database_url=database_url, indexes=tmp_path / "indexes", kept=tmp_path / "kept", now=WORLD.now, seeds=(0,)
    )


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (table6.ORIGINAL, (-61.75, -63.89, -65.62, -63.23, -64.01)),
        (table6.COMPRESSED, (-28.50, -27.79, -33.32, -27.89, -28.53)),
    ],
)
def test_the_papers_figures_give_the_papers_percentages(row: str, changes: tuple[float, ...]) -> None:
    for metric, change in zip(table6.METRICS, changes, strict=True):
        assert 100 * (table6.PAPER[row][metric] / table6.PAPER[table6.SIDS][metric] - 1) == pytest.approx(
            change, abs=0.12
        )


def test_the_three_spellings_are_measured_on_the_same_users_and_kept(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = table6.table6(RECIPE, trials)
    assert [row.name for row in found.rows] == [table6.SIDS, table6.ORIGINAL, table6.COMPRESSED]
    assert (found.users, found.metrics, found.seeds) == (29, table6.METRICS, (0,))
    assert found.row(table6.COMPRESSED).paper["HR@8"] == 0.1317
    pairs = list(dict.fromkeys((each.row, each.against) for each in found.comparisons))
    assert pairs == [
        (table6.ORIGINAL, table6.SIDS),
        (table6.COMPRESSED, table6.SIDS),
        (table6.COMPRESSED, table6.ORIGINAL),
    ]
    assert [each.direction for each in found.compared(table6.COMPRESSED, against=table6.ORIGINAL)] == [1] * 5
    for row in found.rows:
        assert row.figures["HR@8"].mean >= row.figures["HR@4"].mean >= row.figures["HR@1"].mean
    monkeypatch.setattr(table6, "fine_tune", None)  # nothing is trained again
    assert table6.table6(RECIPE, trials) == (found,)


def test_truncation_is_measured_on_a_trained_release(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure5, "LEAST_USERS", 2)  # of 29, in three groups
    curves, weights, hit_ratios = figure5.figure5(RECIPE, trials)
    assert curves.users == weights.users == hit_ratios.users <= 29
    everyone = next(curve for curve in curves.curves if curve.name == figure5.ALL)
    assert everyone.x[0] == 1.0
    assert list(everyone.x) == sorted(everyone.x)
    assert all(0 <= point.low <= point.mean <= point.high <= 1 for curve in curves.curves for point in curve.y)
    row = curves.row(figure5.ALL)
    removed = [int(metric.split()[1]) for metric in row.figures if metric.startswith("Dice")]
    assert removed
    assert set(removed) <= set(everyone.x)
    assert {each.direction for each in curves.comparisons if each.metric.startswith("Dice")} == {-1}
    assert [row.name for row in hit_ratios.rows] == ["whole sequence", "newer half", "last behavior"]
    assert {each.direction for each in weights.comparisons} == {1}
    for row in weights.rows:
        assert set(row.figures) == set(weights.metrics)


def test_an_engine_that_repeats_the_history_weighs_ads_and_not_content(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, echo: Callable[..., Any]
) -> None:
    monkeypatch.setattr(figure5, "LEAST_USERS", 2)
    monkeypatch.setattr(figure5, "load_engine", lambda folder, *, index, **_: echo(index, load_vocabulary(folder)))
    curves, weights, _ = figure5.figure5(RECIPE, trials)
    (ads,) = [each for each in weights.comparisons if each.row == "fall: ads removed" and each.metric == figure5.ALL]
    assert weights.row("fall: as much content removed").figures[figure5.ALL].mean == 0
    assert (ads.agrees, ads.relative) == (True, None)
    means = [point.mean for point in curves.curves[0].y]
    assert means[0] > means[-1]


def test_users_whose_sequences_are_alike_are_not_divided() -> None:
    """Where all behaviors are ads, thirds by the share of ads would be arbitrary."""
    groups = figure5._groups([np.ones(3, np.bool_), np.ones(5, np.bool_)])
    assert {name: users.tolist() for name, users in groups.items()} == {figure5.ALL: [True, True]}
    shares = [np.arange(12) < ads for ads in (2, 2, 6, 6, 11, 11)]
    thirds = figure5._groups(shares)
    assert [thirds[name].tolist().index(True) for name in (figure5.FEWEST, figure5.MIDDLE, figure5.MOST)] == [0, 2, 4]
    assert [int(users.sum()) for users in thirds.values()] == [6, 2, 2, 2]
