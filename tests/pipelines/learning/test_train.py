"""The training pipeline over a real database: from tables to a release that an engine can serve."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from leadre.artifacts import open_artifact
from leadre.collaborative.blend import Collaborative
from leadre.decoding.load import load_engine
from leadre.domain.behavior import Domain
from leadre.errors import ConfigError, InvalidInput, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads, version_of
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import encode
from leadre.pipelines.learning.train import TrainingResult, read_training_data, train
from leadre.prompts.render import render_explicit
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import (
    CollaborativeRecipe,
    DistilRecipe,
    DpoRecipe,
    IndexRecipe,
    ModelRecipe,
    PromptRecipe,
    Recipe,
    SasRecRecipe,
    SftRecipe,
    decode_recipe,
    encode_recipe,
)
from leadre.store.importers.bids import simulate_bids
from leadre.store.importers.prices import MarketPrices
from leadre.store.importers.synthetic import import_world
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world
from leadre.training.learner.release_folder import load_prompt_encoder, load_vocabulary
from leadre.training.learner.tokenizer import model_tokenizer, train_text_tokenizer

WORLD = make_world(seed=2, ads=96, users=50, sessions=5, slate=4)
RECIPE = Recipe(
    name="tiny",
    index=IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=16, epochs=5),
    prompt=PromptRecipe(template="one_pass", budget_tokens=300),
    model=ModelRecipe(hidden_size=32, layers=1, heads=2, feed_forward=48, text_vocabulary=700),
    sft=SftRecipe(
        epochs=(1.0, 1.0, 1.0), learning_rate=1e-3, minimum_learning_rate=1e-4, batch_size=16, device_batch_size=16
    ),
    dpo=DpoRecipe(batch_size=8, max_pairs=24),
)
WITHOUT_DPO = msgspec.structs.replace(RECIPE, dpo=DpoRecipe(enabled=False))


@pytest.fixture(scope="module")
def index() -> AdIndex:
    embeddings = encode([describe(ad) for ad in WORLD.ads], encoder=RECIPE.index.encoder)
    return index_ads(
        WORLD.ads,
        embeddings,
        fit_quantiser(embeddings, RECIPE.index),
        version=version_of(WORLD.ads, RECIPE.index),
    )


@pytest.fixture
def world_url(database_url: str) -> str:
    import_world(WORLD, database_url=database_url)
    return database_url


def run(url: str, releases: Path, index: AdIndex, *, recipe: Recipe, name: str) -> TrainingResult:
    return train(database_url=url, releases=releases, index=index, recipe=recipe, now=WORLD.now, name=name)


def test_a_release_is_trained_with_the_model_before_dpo_beside_it_and_both_retrieve_ads(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    reported: set[str] = set()
    result = train(
        database_url=world_url,
        releases=tmp_path,
        index=index,
        recipe=RECIPE,
        now=WORLD.now,
        progress=lambda what, _, __: reported.add(what),
    )
    assert result.folder.name == f"tiny-{WORLD.now:%Y%m%dT%H%M%S}"
    assert result.sft_folder is not None
    assert {"train: explicit", "train: implicit", "train: main", "train: dpo"} <= reported
    metrics = json.loads((result.folder / "metrics.json").read_text())["training"]
    assert metrics["explicit"]["examples"] == 96
    assert 0 < metrics["preference_pairs"] <= 24
    stages = [point["stage"] for point in json.loads((result.folder / "curves.json").read_text())]
    assert list(dict.fromkeys(stages)) == ["explicit", "implicit", "main", "dpo"]
    data = read_training_data(database_url=world_url, index=index, recipe=RECIPE, now=WORLD.now)
    user = next(user for user, positions in enumerate(data.targets) if positions)
    for folder in (result.folder, result.sft_folder):
        prompt = load_prompt_encoder(folder).encode(data.prompt(user, data.targets[user][-1], augment=False))
        beams = load_engine(folder, index=index).generate([prompt], beam_width=7)[0]
        assert len({beam.ad_id for beam in beams}) == 7


def test_the_recipe_says_by_which_loss_pairs_are_learned(world_url: str, tmp_path: Path, index: AdIndex) -> None:
    sft = msgspec.structs.replace(RECIPE.sft, curriculum=(("main",),), epochs=(1.0,))
    recipe = msgspec.structs.replace(RECIPE, sft=sft, dpo=DpoRecipe(method="rrhf", batch_size=8, max_pairs=16))
    trained = run(world_url, tmp_path, index, recipe=recipe, name="r")
    assert trained.sft_folder is not None
    stages = [point["stage"] for point in json.loads((trained.folder / "curves.json").read_text())]
    assert list(dict.fromkeys(stages)) == ["main", "rrhf"]


def test_the_last_stage_is_validated_on_ads_that_it_never_learns_and_keeps_its_best_pass(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    sft = msgspec.structs.replace(
        RECIPE.sft, curriculum=(("explicit",), ("main",)), epochs=(1.0, 3.0), validate_users=23
    )
    recipe = msgspec.structs.replace(WITHOUT_DPO, sft=sft)
    folder = run(world_url, tmp_path, index, recipe=recipe, name="r").folder
    data = read_training_data(database_url=world_url, index=index, recipe=recipe, now=WORLD.now)
    assert len(data.validation) > 23
    assert all(at > max(data.targets[user]) for user, at in data.validation)
    assert all(data.sequences[user][at].domain is Domain.AD for user, at in data.validation)
    points = json.loads((folder / "curves.json").read_text())
    validated = [point for point in points if point["hr_10"] is not None]
    assert [point["stage"] for point in validated] == ["main"] * 3
    assert all(0 <= point["ndcg_10"] <= point["hr_10"] <= 1 for point in validated)


SASREC = SasRecRecipe(width=8, layers=1, heads=2, positions=20, epochs=3, batch_size=16)


def test_the_signal_is_fitted_once_teaches_the_llm_out_of_fold_and_is_released_with_it(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    reported: list[str] = []
    sft = msgspec.structs.replace(
        RECIPE.sft,
        curriculum=(("explicit",), ("main",)),
        epochs=(1.0, 2.0),
        level_loss=True,
        distil=DistilRecipe(weight=0.8, folds=2),
        average=0.9,
        validate_users=20,
        checkpoint_steps=3,
    )
    recipe = msgspec.structs.replace(
        WITHOUT_DPO,
        sft=sft,
        model=msgspec.structs.replace(RECIPE.model, dropout=0.1),
        collaborative=CollaborativeRecipe(enabled=True, weight=0.3, sasrec=SASREC),
    )
    folder = train(
        database_url=world_url,
        releases=tmp_path,
        index=index,
        recipe=recipe,
        now=WORLD.now,
        name="taught",
        progress=lambda what, _, __: reported.append(what),
    ).folder
    order = [what for what in dict.fromkeys(reported) if what != "embed"]
    assert order == [
        "SASRec epochs", "SASRec epochs, fold 1 of 2", "SASRec epochs, fold 2 of 2", "teacher", "train: explicit",
        "train: main",
    ]  # fmt: skip
    assert reported.count("SASRec epochs") <= 3
    signal, weight = Collaborative.load(folder) or pytest.fail("no signal in the release")
    assert weight == 0.3
    assert 1 <= signal.sasrec.epochs <= 3
    data = read_training_data(database_url=world_url, index=index, recipe=recipe, now=WORLD.now)
    user = next(user for user, positions in enumerate(data.targets) if positions)
    prompt = load_prompt_encoder(folder).encode(data.prompt(user, data.targets[user][-1], augment=False))
    assert len(load_engine(folder, index=index).generate([prompt], beam_width=7)[0]) == 7
    assert not (tmp_path / ".taught.training").exists()


def test_an_llm_may_learn_beside_the_signal_and_is_validated_beside_it(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    sft = msgspec.structs.replace(
        RECIPE.sft, curriculum=(("main",),), epochs=(1.0,), objective="beside_signal", validate_users=20
    )
    recipe = msgspec.structs.replace(
        WITHOUT_DPO, sft=sft, collaborative=CollaborativeRecipe(enabled=True, weight=0.5, sasrec=SASREC)
    )
    folder = run(world_url, tmp_path, index, recipe=recipe, name="beside").folder
    points = json.loads((folder / "curves.json").read_text())
    assert any(point["hr_10"] is not None for point in points)
    with pytest.raises(ConfigError, match=r"beside_signal' needs collaborative\.enabled"):
        decode_recipe(encode_recipe(recipe) | {"collaborative": {"enabled": False}}, source="r")


def test_a_market_s_prices_let_data_without_any_be_aligned(database_url: str, tmp_path: Path, index: AdIndex) -> None:
    priceless = [dataclasses.replace(ad, bid=1.0, bid_simulated=True) for ad in WORLD.ads]
    import_world(dataclasses.replace(WORLD, ads=tuple(priceless), impressions=()), database_url=database_url)
    sft = msgspec.structs.replace(RECIPE.sft, curriculum=(("main",),), epochs=(1.0,))
    recipe = msgspec.structs.replace(RECIPE, sft=sft)
    without = run(database_url, tmp_path, index, recipe=recipe, name="without")
    prices = MarketPrices(bids=np.array([0.5, 2.0, 9.0]), counts=np.array([5, 3, 2]))
    database = connect(database_url)
    with transaction(database) as connection:
        simulate_bids(connection, prices, seed=1)
    database.dispose()
    aligned = run(database_url, tmp_path, index, recipe=recipe, name="aligned")
    pairs = [
        json.loads((made.folder / "metrics.json").read_text())["training"]["preference_pairs"]
        for made in (without, aligned)
    ]
    assert pairs[0] == 0
    assert pairs[1] > 0


def test_a_warm_start_goes_on_from_a_release_and_keeps_its_vocabulary(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    first = run(world_url, tmp_path, index, recipe=WITHOUT_DPO, name="monday").folder
    warm = train(
        database_url=world_url,
        releases=tmp_path,
        index=index,
        recipe=WITHOUT_DPO,
        now=WORLD.now,
        name="tuesday",
        warm_start=first,
    )
    assert warm.sft_folder is None
    assert load_vocabulary(warm.folder) == load_vocabulary(first)
    losses = [json.loads((folder / "curves.json").read_text())[0]["loss"] for folder in (first, warm.folder)]
    assert losses[1] < losses[0] - 0.3
    with pytest.raises(FileExistsError, match="monday"):
        run(world_url, tmp_path, index, recipe=WITHOUT_DPO, name="monday")


def test_a_training_killed_in_dpo_goes_on_behind_its_finished_stages_and_leaves_nothing_but_releases(
    world_url: str, tmp_path: Path, index: AdIndex
) -> None:
    sft = msgspec.structs.replace(RECIPE.sft, checkpoint_steps=2, curriculum=(("explicit",), ("main",)), epochs=(1, 1))
    recipe = msgspec.structs.replace(RECIPE, sft=sft)
    reported: list[str] = []

    def attempt(releases: Path, *, killed_in: str = "", recipe: Recipe = recipe) -> TrainingResult:
        def progress(what: str, _: int, __: int | None) -> None:
            reported.append(what)
            if what == killed_in:
                raise InterruptedError

        return train(
            database_url=world_url,
            releases=releases,
            index=index,
            recipe=recipe,
            now=WORLD.now,
            name="r",
            progress=progress,
        )

    with pytest.raises(InterruptedError):
        attempt(tmp_path / "killed", killed_in="train: dpo")
    made = (tmp_path / "killed" / "r-sft" / "manifest.json").read_bytes()
    assert (tmp_path / "killed" / ".r.training" / "1-main.finished").is_dir()
    other = msgspec.structs.replace(recipe, sft=msgspec.structs.replace(sft, learning_rate=2e-3))
    with pytest.raises(ConfigError, match=r"another sft\.learning_rate"):
        attempt(tmp_path / "killed", recipe=other)
    reported.clear()
    killed = attempt(tmp_path / "killed").folder
    assert set(reported) == {"generate candidates", "train: dpo"}
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["r", "r-sft"]
    assert (tmp_path / "killed" / "r-sft" / "manifest.json").read_bytes() == made
    whole = attempt(tmp_path / "whole").folder
    for weights in ("r/model/model.safetensors", "r-sft/model/model.safetensors"):
        assert (killed.parent / weights).read_bytes() == (whole.parent / weights).read_bytes()


def test_a_warm_start_from_another_index_is_refused(world_url: str, tmp_path: Path, index: AdIndex) -> None:
    first = run(world_url, tmp_path, index, recipe=WITHOUT_DPO, name="monday").folder
    other = AdIndex(**{name: getattr(index, name) for name in AdIndex.__slots__} | {"version": "other"})
    with pytest.raises(ReleaseMismatch, match="other"):
        train(
            database_url=world_url,
            releases=tmp_path,
            index=other,
            recipe=WITHOUT_DPO,
            now=WORLD.now,
            name="tuesday",
            warm_start=first,
        )


def make_base(folder: Path, *, ours_already: bool) -> None:
    tokenizer = train_text_tokenizer(["Click ad^", "days ago^", "hiking tour"] * 3, size=320)
    vocabulary = Vocabulary(text_size=tokenizer.get_vocab_size() + 1, code_counts=(2,))
    base = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    (model_tokenizer(base, vocabulary) if ours_already else base).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=310,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        max_position_embeddings=2003,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize("lora_rank", [0, 3])
def test_a_pretrained_base_from_a_folder_is_fine_tuned(
    world_url: str, tmp_path: Path, index: AdIndex, lora_rank: int
) -> None:
    make_base(tmp_path / "base", ours_already=False)
    recipe = msgspec.structs.replace(
        RECIPE,
        prompt=PromptRecipe(template="one_pass", budget_tokens=2000),
        model=ModelRecipe(base_model=str(tmp_path / "base"), lora_rank=lora_rank),
        sft=msgspec.structs.replace(RECIPE.sft, curriculum=(("explicit",),), epochs=(1.0,)),
    )
    folder = run(world_url, tmp_path, index, recipe=recipe, name="based").folder
    assert open_artifact(folder, kind="release").facts["architecture"] == "llama"
    prompt = load_prompt_encoder(folder).encode(render_explicit("a <|im_end|> <a_1> tour", recipe=recipe.prompt))
    vocabulary = load_vocabulary(folder)
    assert [token for token in prompt if token >= vocabulary.text_size - 1] == [vocabulary.learnable_id]
    assert len(load_engine(folder, index=index).generate([prompt], beam_width=5)[0]) == 5


def test_a_base_with_sid_tokens_of_its_own_is_refused(world_url: str, tmp_path: Path, index: AdIndex) -> None:
    make_base(tmp_path / "base", ours_already=True)
    recipe = msgspec.structs.replace(WITHOUT_DPO, model=ModelRecipe(base_model=str(tmp_path / "base")))
    recipe = msgspec.structs.replace(recipe, prompt=PromptRecipe(budget_tokens=1900))
    with pytest.raises(ConfigError, match="clash"):
        run(world_url, tmp_path, index, recipe=recipe, name="clash")


def test_held_out_ads_are_no_targets_and_what_is_yet_to_come_is_not_read(world_url: str, index: AdIndex) -> None:
    now = WORLD.now - timedelta(days=30)
    data, earlier = (
        read_training_data(database_url=world_url, index=index, recipe=RECIPE, now=at) for at in (WORLD.now, now)
    )
    whole = {rows[0].user_id: rows for rows in data.sequences}
    assert sum(map(len, earlier.sequences)) < sum(map(len, data.sequences))
    for rows, positions in zip(earlier.sequences, earlier.targets, strict=True):
        assert rows == [row for row in whole[rows[0].user_id] if row.occurred_at <= now]
        ads = [at for at, row in enumerate(rows) if row.domain is Domain.AD]
        assert positions == (ads[:-2] if len(ads) > 2 else ads)


def test_without_any_ad_behavior_there_is_nothing_to_learn(database_url: str, tmp_path: Path, index: AdIndex) -> None:
    with pytest.raises(InvalidInput, match="nothing to learn"):
        run(database_url, tmp_path, index, recipe=RECIPE, name="nothing")
    assert not (tmp_path / "nothing").exists()
