"""Dropout in training alone, and none of it in the model that is released."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from leadre.errors import ConfigError
from leadre.recipe import ModelRecipe, decode_recipe
from leadre.training.learner.dropout import dropping_out
from leadre.training.learner.model import build_model

IDS = torch.tensor([[3, 9, 4, 1, 22]])


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
def test_values_drop_out_while_it_trains_and_only_then(architecture: str, tmp_path: Path) -> None:
    recipe = ModelRecipe(architecture=architecture, hidden_size=24, layers=2, heads=2, feed_forward=20)  # type: ignore[arg-type]
    model = build_model(recipe, vocabulary_size=40, positions=20, pad=38, eos=39, seed=1)
    plain = model(input_ids=IDS).logits.detach()
    with dropping_out(model, 0.5), torch.no_grad():
        torch.testing.assert_close(model.eval()(input_ids=IDS).logits, plain)
        model.train()
        torch.manual_seed(0)
        seen = model.get_input_embeddings()(IDS)
        assert 0.2 < float((seen == 0).float().mean()) < 0.8
        first, second = (model(input_ids=IDS).logits for _ in range(2))
        assert not torch.equal(first, second)
    with torch.no_grad():
        torch.testing.assert_close(model.train()(input_ids=IDS).logits, plain)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(input_ids=IDS).logits.detach(), plain)


def test_without_a_rate_nothing_is_hooked() -> None:
    model = build_model(ModelRecipe(hidden_size=16, layers=1, heads=2), vocabulary_size=30, positions=9, pad=1, eos=2, seed=0)
    with dropping_out(model, 0.0):
        assert not any(module._forward_hooks for module in model.modules())


def test_a_pretrained_base_has_none() -> None:
    with pytest.raises(ConfigError, match=r"model\.dropout=0\.1 is for a model from scratch"):
        decode_recipe({"name": "r", "model": {"base_model": "somebody/s", "dropout": 0.1}}, source="r")
