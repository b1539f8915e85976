"""The Beauty recipes for GPUs: of the size they name, and the one with a pretrained base trained from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from leadre.artifacts import open_artifact
from leadre.decoding.load import load_engine
from leadre.indexing.texts.description import describe
from leadre.pipelines.index.build import build_index
from leadre.pipelines.learning.train import read_training_data, train
from leadre.project import project_file
from leadre.recipe import load_recipe
from leadre.store.importers.synthetic import import_world
from leadre.synthetic import make_world
from leadre.training.learner.model import build_model
from leadre.training.learner.release_folder import load_prompt_encoder

WORLD = make_world(seed=2, ads=96, users=40, sessions=4, slate=3)
SMALL = (
    "index.encoder=hashed", "index.codes=8", "index.levels=2", "index.width=8", "index.sasrec.width=8",
    "index.sasrec.epochs=1", "collaborative.sasrec.width=8", "collaborative.sasrec.epochs=1",
    "collaborative.calibration_users=5", "prompt.budget_tokens=1500", "sft.epochs=[0.2, 0.2, 1.0]",
    "sft.validate_users=4", "sft.batch_size=8", "sft.device_batch_size=4", "sft.precision=fp32",
)  # fmt: skip


def make_checkpoint(folder: Path) -> None:
    """Write a tiny Qwen3 with a tokenizer, as `save_pretrained` does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|endoftext|>"]
    )
    tokenizer.train_from_iterator([describe(ad) for ad in WORLD.ads], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=640,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def test_the_pretrained_recipe_trains_a_qwen3_from_a_folder_and_its_release_retrieves(
    database_url: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "base")
    import_world(WORLD, database_url=database_url)
    recipe = load_recipe(
        project_file("recipes/amazon_beauty_qwen3.toml"), overrides=(*SMALL, f"model.base_model={tmp_path / 'base'}")
    )
    index = build_index(
        database_url=database_url,
        indexes=tmp_path / "indexes",
        recipe=recipe.index,
        now=WORLD.now,
        held_out=recipe.evaluation,
    )
    folder = train(
        database_url=database_url,
        releases=tmp_path / "releases",
        index=index,
        recipe=recipe,
        now=WORLD.now,
        name="qwen3",
    ).folder
    manifest = open_artifact(folder, kind="release")
    assert manifest.facts["architecture"] == "qwen3"
    data = read_training_data(database_url=database_url, index=index, recipe=recipe, now=WORLD.now)
    assert manifest.facts["seen"] == data.seen
    assert "weight" in json.loads((folder / "metrics.json").read_text())["training"]["collaborative"]
    prompt = load_prompt_encoder(folder).encode(data.prompt(*data.validation[0], augment=False))
    assert len(load_engine(folder, index=index).generate([prompt], beam_width=7)[0]) == 7


def test_the_recipe_for_a_gpu_has_the_size_it_names() -> None:
    recipe = load_recipe(project_file("recipes/amazon_beauty_gpu.toml"))
    model = build_model(recipe.model, vocabulary_size=5_100, positions=400, pad=0, eos=1, seed=0)
    assert 18e6 < model.num_parameters() < 20e6
    assert (recipe.sft.distil.weight, recipe.model.dropout, recipe.sft.average) == (0.8, 0.2, 0.999)
