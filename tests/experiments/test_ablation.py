"""Trainings of an experiment over a real database: shared, kept, and recorded nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path

import pytest
from msgspec.structs import replace

from leadre.errors import ConfigError
from leadre.experiments import ablation
from leadre.experiments.ablation import Trials, Variant, fine_tuned, run_variants
from leadre.experiments.figure4 import figure4
from leadre.experiments.table1 import table1
from leadre.experiments.table4 import table4
from leadre.recipe import (
    DecodingRecipe,
    DpoRecipe,
    EvaluationRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SftRecipe,
    load_recipe,
)
from leadre.store.importers.synthetic import import_world
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import list_releases, newest_index
from leadre.synthetic import make_world

RECIPES = Path(__file__).parents[2] / "recipes"
WORLD = make_world(seed=2, ads=96, users=40, sessions=5, slate=4)
RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16),
    prompt=PromptRecipe(template="one_pass", budget_tokens=400),
    model=ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=24, text_vocabulary=400),
    sft=SftRecipe(
        curriculum=(("main",),),
        epochs=(1.0,),
        learning_rate=1e-3,
        minimum_learning_rate=1e-4,
        batch_size=32,
        device_batch_size=32,
    ),
    dpo=DpoRecipe(batch_size=8, max_pairs=8),
    decoding=DecodingRecipe(beam_width=9),
    evaluation=EvaluationRecipe(max_users=11, baselines=("sasrec",)),
)


@pytest.fixture
def trials(database_url: str, tmp_path: Path) -> Trials:
    import_world(WORLD, database_url=database_url)
    return Trials(
        database_url=database_url, indexes=tmp_path / "indexes", kept=tmp_path / "kept", now=WORLD.now, seeds=(0, 1)
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what is trained, and what it goes on from."""
    calls: list[str] = []
    real: Callable[..., object] = ablation.train

    def train(**arguments: object) -> object:
        recipe = arguments["recipe"]
        assert isinstance(recipe, Recipe)
        what = recipe.dpo.method if recipe.dpo.enabled else "sft"
        calls.append(f"{what} {recipe.sft.seed}" + (" on" if arguments["warm_start"] else ""))
        return real(**arguments)

    monkeypatch.setattr(ablation, "train", train)
    return calls


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_had_as_the_papers_tables_have_it(path: Path) -> None:
    tuned = fine_tuned(load_recipe(path))
    assert not tuned.dpo.enabled
    assert not tuned.collaborative.enabled
    assert tuned.decoding.variety == 0


def test_alignments_go_on_from_one_training_and_nothing_is_recorded_or_trained_twice(
    trials: Trials, trained: list[str], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int | None]] = []
    one = changed(trials, seeds=(4,))
    token, aligned = figure4(RECIPE, changed(one, progress=lambda *said: told.append(said)))
    assert trained == ["sft 4", "sft 4", "rrhf 4 on", "dpo 4 on"]
    assert told[-1] == ("all trainings, %", 100, 100)
    assert ("DPO, seed 4", 100, 100) in told
    assert (token.users, token.seeds) == (11, (4,))
    assert [row.name for row in aligned.rows] == ["SFT", "RRHF", "DPO"]
    assert aligned.row("SFT").figures["HR@8"] == token.row("w. SoftPrompt").figures["HR@8"]
    assert [len(curve.x) for curve in token.curves] == [3] * 4
    assert "simulated" in aligned.note
    assert aligned.compared("DPO", "RRHF")[0].direction == 1
    engine = connect(trials.database_url)
    with transaction(engine) as connection:
        assert list_releases(connection) == []
        assert newest_index(connection) is None
    engine.dispose()
    assert not (tmp_path / "indexes").exists()

    assert figure4(RECIPE, one) == (token, aligned)
    assert len(trained) == 4
    next(trials.kept.glob("*.npz")).unlink()  # as if it had been killed before
    assert figure4(RECIPE, one) == (token, aligned)


def test_rows_that_tables_share_are_trained_once_and_other_data_are_trained_anew(
    trials: Trials, trained: list[str]
) -> None:
    (encoders,) = table4(RECIPE, trials, encoders=("hashed", "hashed", "minilm"))
    assert trained == ["sft 0", "sft 0", "sft 1", "sft 1"]
    assert [row.name for row in encoders.rows] == ["hashed S-IDs", "minilm S-IDs", "Hunyuan S-IDs", "E5 S-IDs"]
    assert set(encoders.row("minilm S-IDs").seed_sd) == {"HR@4", "HR@8", "LTRR@4", "LTRR@8"}
    one = changed(trials, seeds=(1,))
    (components,) = table1(RECIPE, one)
    assert trained[4:] == ["sft 1", "sft 1"]  # the first row is there
    assert components.row("LEADRE").seed_sd == {}
    engine = connect(trials.database_url)
    with transaction(engine) as connection:
        connection.exec_driver_sql("DELETE FROM impressions")
    engine.dispose()
    run_variants({"full": Variant(recipe=fine_tuned(RECIPE))}, one)
    assert len(trained) == 7


def test_table_4_needs_two_encoders(trials: Trials) -> None:
    with pytest.raises(ConfigError, match="only hashed"):
        table4(replace(RECIPE, index=replace(RECIPE.index, encoder="minilm")), trials, encoders=("hashed",))
