"""Models: from sizes, or from a checkpoint on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from leadre.errors import ConfigError
from leadre.precision import training_type
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import ModelRecipe
from leadre.training.learner.model import build_model, start_codes


def build(recipe: ModelRecipe, *, vocabulary_size: int = 70, positions: int = 40):  # type: ignore[no-untyped-def]
    return build_model(recipe, vocabulary_size=vocabulary_size, positions=positions, pad=61, eos=62, seed=4)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_every_architecture_has_the_sizes_asked_for(architecture: str) -> None:
    model = build(ModelRecipe(architecture=architecture, hidden_size=24, layers=3, heads=2, feed_forward=20))  # type: ignore[arg-type]
    assert model.config.model_type == architecture
    assert model.get_input_embeddings().weight.shape == (70, 24)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (model.config.num_hidden_layers, model.config.max_position_embeddings) == (3, 40)


def test_the_seed_decides_the_weights() -> None:
    recipe = ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=12)
    for mine, again in zip(build(recipe).parameters(), build(recipe).parameters(), strict=True):
        assert torch.equal(mine, again)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="heads"):
        build(ModelRecipe(hidden_size=20, heads=3))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=12,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_base_keeps_its_weights_and_gains_rows_for_the_codes(checkpoint: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    model = build(ModelRecipe(base_model=str(checkpoint)))
    for layer, old in (
        (model.get_input_embeddings(), base.get_input_embeddings()),
        (model.get_output_embeddings(), base.get_output_embeddings()),
    ):
        assert layer.weight.shape == (70, 16)
        assert torch.equal(layer.weight[:50], old.weight)
        assert 0.5 < float((layer.weight[50:].std() / old.weight.std()).detach()) < 2.0
    assert model.config.vocab_size == 70


def test_a_base_that_reads_too_little_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="reads 64 tokens, prompts may have 65"):
        build(ModelRecipe(base_model=str(checkpoint)), positions=65)


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_model"):
        build(ModelRecipe(base_model=str(tmp_path / "nothing")))


def test_precision_follows_the_recipe() -> None:
    assert training_type("bf16") is torch.bfloat16
    assert training_type("fp32") is torch.float32
    assert training_type("auto") in {torch.bfloat16, torch.float32}


CODES = Vocabulary(text_size=20, code_counts=(26, 17, 4))  # 70 tokens


@pytest.mark.parametrize("width", [5, 41])  # narrower and wider than the model
@pytest.mark.parametrize("heads", ["tied", "untied"])
def test_codes_start_at_their_vectors_at_the_scale_they_had_and_nothing_else_changes(
    checkpoint: Path, width: int, heads: str
) -> None:
    base = ModelRecipe(base_model=str(checkpoint))
    model = build(ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=12) if heads == "tied" else base)
    random = np.random.default_rng(6)
    shape = np.geomspace(1.0, 0.02, width)  # some components say more than others
    vectors = [
        (size * shape * random.normal(size=(count, width))).astype(np.float32) for size, count in ((9, 26), (2, 17))
    ]
    tables = {id(table): table for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    assert len(tables) == (1 if heads == "tied" else 2)
    before = [table.detach().clone() for table in tables.values()]
    start_codes(model, vectors, vocabulary=CODES, seed=3)
    for table, old in zip(tables.values(), before, strict=True):
        new = table.detach()
        assert torch.equal(new[:23], old[:23])
        assert torch.equal(new[66:], old[66:])  # the disambiguation codes
        for rows, own in ((slice(23, 49), vectors[0]), (slice(49, 66), vectors[1])):
            assert float(new[rows].std() / old[rows].std()) == pytest.approx(1.0, abs=0.12)
            like = [np.corrcoef(part @ part.T)[np.triu_indices(len(own), 1)] for part in (own, new[rows].numpy())]
            assert np.corrcoef(like)[0, 1] > 0.7  # codes with like vectors start alike
            assert len(torch.unique(new[rows], dim=0)) == len(own)


def test_codes_that_no_ad_has_start_at_noise_and_the_seed_decides_it() -> None:
    recipe = ModelRecipe(hidden_size=16, layers=1, heads=2, feed_forward=12)
    vectors = [np.zeros((26, 5), np.float32), np.ones((17, 5), np.float32)]
    tables = []
    for seed in (1, 1, 2):
        model = build(recipe)
        start_codes(model, vectors, vocabulary=CODES, seed=seed)
        tables.append(model.get_input_embeddings().weight.detach())
    assert torch.isfinite(tables[0]).all()
    assert len(torch.unique(tables[0][23:49], dim=0)) == 26
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
