"""Recipes: strict, bounded, and whole after a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leadre.errors import ConfigError
from leadre.recipe import Recipe, decode_recipe, encode_recipe, load_recipe

SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text('[index]\nlevels = 3\ncodes = 17\n[sft]\ncurriculum = [["main"]]\nepochs = [2]\n')
    return path


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_a_recipe_that_ships_loads_and_survives_json(shipped: Path) -> None:
    recipe = load_recipe(shipped)
    assert decode_recipe(json.loads(json.dumps(encode_recipe(recipe))), source="json") == recipe


def test_the_paper_s_numbers_are_the_defaults() -> None:
    recipe = Recipe(name="paper")
    assert (recipe.index.levels, recipe.index.codes, recipe.index.width) == (4, 1024, 8)  # §5.1.3
    assert (recipe.prompt.budget_tokens, recipe.prompt.window_days) == (2096, 90)
    assert (recipe.sft.learning_rate, recipe.sft.minimum_learning_rate) == (6e-5, 6e-6)
    assert (recipe.sft.batch_size, recipe.sft.weight_decay, recipe.sft.epochs) == (64, 0.9, (3.0, 3.0, 3.0))
    assert recipe.sft.curriculum == (("explicit",), ("implicit",), ("main",))
    assert {1, 4, 8} <= set(recipe.evaluation.cutoffs)


def test_a_file_is_laid_over_the_defaults_and_named_after_itself(path: Path) -> None:
    recipe = load_recipe(path)
    assert (recipe.name, recipe.index.levels, recipe.index.codes) == ("tiny", 3, 17)
    assert recipe.index.width == 8
    assert recipe.sft.epochs == (2.0,)


def test_overrides_are_toml_or_bare_strings(path: Path) -> None:
    overrides = (
        "sft.seed=5",
        "sft.epochs=[0.5]",
        "index.quantiser=residual_kmeans",
        "prompt.summary=false",
        'name="n"',
    )
    recipe = load_recipe(path, overrides=overrides)
    assert (recipe.sft.seed, recipe.sft.epochs, recipe.index.quantiser) == (5, (0.5,), "residual_kmeans")
    assert recipe.prompt.summary is False
    assert recipe.name == "n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("index.codes=1", r"tiny\.toml.*>= 2.*\$\.index\.codes"),
        ("index.kodes=1", r"tiny\.toml: there is no key index\.kodes; did you mean index\.codes\?"),
        ("model.lora_rnk=8", r"no key model\.lora_rnk; did you mean model\.lora_rank\?"),
        ("evaluation.sasrec.wdth=8", r"no key evaluation\.sasrec\.wdth; did you mean evaluation\.sasrec\.width\?"),
        ("indx.codes=3", r"no key indx; did you mean index\.codes\?"),
        ("decoding.xyz=1", r"no key decoding\.xyz; there are score, beam_width, variety, seen"),
        ("index.signal=collaborative", r"index\.signal='collaborative' goes with .*'residual_kmeans', not 'rqvae'"),
        ("collaborative.weight=1.5", r"Expected `float` <= 1.*collaborative\.weight"),
        ("collaborative.combine=ranker", r"collaborative\.combine=.ranker. needs collaborative\.enabled=true"),
        ("index.quantiser=magic", r"Invalid enum value 'magic'.*\$\.index\.quantiser"),
        ("sft.warmup_fraction=1.5", r"<= 1.*warmup_fraction"),
        ("sft.epochs=[1, 2]", r"sft\.epochs has 2 numbers for 1 stages"),
        ("sft.device_batch_size=7", r"batch_size=64 must be a multiple of device_batch_size=7"),
        ("sft.seed", r"write section\.key=value"),
        ("=3", r"write section\.key=value"),
        ("name.first=3", r"name is not a section"),
    ],
)
def test_a_value_that_cannot_work_is_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(path, overrides=(override,))


def test_a_collaborative_signal_is_refused_where_scores_do_not_add_up(path: Path) -> None:
    enabled = "collaborative.enabled=true"
    assert load_recipe(path, overrides=(enabled, "decoding.score=raw")).collaborative.enabled
    with pytest.raises(ConfigError, match=r"collaborative\.enabled adds .* score 'valid' does not"):
        load_recipe(path, overrides=(enabled, "decoding.score=valid"))
    assert load_recipe(path, overrides=("index.signal=collaborative", "index.quantiser=residual_kmeans"))


def test_a_misspelt_key_of_a_file_is_answered_with_the_nearest_key_of_its_section(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[sft]\nbach_size = 32\n")
    with pytest.raises(
        ConfigError, match=r"mine\.toml: there is no key sft\.bach_size; did you mean sft\.batch_size\?"
    ):
        load_recipe(tmp_path / "mine.toml")


def test_a_release_of_before_that_had_no_category_cap_still_loads(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text("[decoding]\ncategory_cap = 0\nbeam_width = 7\n")
    assert load_recipe(tmp_path / "old.toml").decoding.beam_width == 7
    (tmp_path / "old.toml").write_text("[decoding]\ncategory_cap = 3\n")
    with pytest.raises(ConfigError, match=r"no key decoding\.category_cap"):
        load_recipe(tmp_path / "old.toml")


@pytest.mark.parametrize("section", ["decoding = 3", "sft = 3", "name = {first = 1}"])
def test_a_section_of_the_wrong_kind_is_refused(tmp_path: Path, section: str) -> None:
    (tmp_path / "mine.toml").write_text(section)
    with pytest.raises(ConfigError, match=r"mine\.toml: Expected"):
        load_recipe(tmp_path / "mine.toml")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe at .*nine\.toml"):
        load_recipe(tmp_path / "nine.toml")
    (tmp_path / "broken.toml").write_text("[index\n")
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_recipe(tmp_path / "broken.toml")
