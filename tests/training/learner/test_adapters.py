"""Adapters: what they train, and that nothing of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from leadre.recipe import ModelRecipe
from leadre.training.learner.adapters import adapted
from leadre.training.objectives.head import attach_head, detach_head

NEW_TOKENS = range(50, 70)
RECIPE = ModelRecipe(lora_rank=3, lora_alpha=6)
TOKENS = torch.tensor([[3, 11, 52, 49, 61, 69], [7, 50, 12, 0, 66, 51]])
SIZES = {
    "vocab_size": 70,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
}


@pytest.fixture(params=["tied llama", "untied llama", "tied qwen2"])
def base(request: pytest.FixtureRequest) -> PreTrainedModel:
    tied, architecture = request.param.split()
    torch.manual_seed(1)
    config = (LlamaConfig if architecture == "llama" else Qwen2Config)(**SIZES, tie_word_embeddings=tied == "tied")
    return AutoModelForCausalLM.from_config(config)


def step(model: PreTrainedModel) -> torch.Tensor:
    """One optimizer step through the training head; returns the log-probabilities after it."""
    labels = TOKENS.where(TOKENS >= 50, torch.tensor(-100))
    attach_head(model, blocks=[(50, 12), (62, 8)])
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.02)
    for _ in range(2):  # LoRA's A has no gradient in the first, for B is zero
        optimizer.zero_grad()
        model(TOKENS, labels=labels, fused_lm_head=True).loss.backward()
        optimizer.step()
    after = model(TOKENS, labels=labels, fused_lm_head=True).log_probs.detach()
    detach_head(model)
    return after


def test_new_rows_and_linear_layers_learn_and_all_else_stays_and_the_model_is_plain_again(
    base: PreTrainedModel, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with adapted(base, RECIPE, new_tokens=NEW_TOKENS, seed=0):
        log_probs = step(base)
    after = base.state_dict()
    assert list(after) == list(before)
    for name, value in after.items():
        changed = ~torch.isclose(value, before[name], rtol=0, atol=1e-7)
        if "embed_tokens" in name or "lm_head" in name:
            assert not changed[:50].any()
            assert changed[50:].any()
        else:
            assert changed.any() == ("_proj.weight" in name)
    assert all(value.requires_grad for value in base.parameters())
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert tied == base.config.tie_word_embeddings
    base.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    attach_head(read, blocks=[(50, 12), (62, 8)])
    labels = TOKENS.where(TOKENS >= 50, torch.tensor(-100))
    again = read(TOKENS, labels=labels, fused_lm_head=True).log_probs
    torch.testing.assert_close(again, log_probs, rtol=0, atol=1e-5)


def test_far_fewer_numbers_are_trained_and_the_seed_decides_how_they_start(base: PreTrainedModel) -> None:
    starts = []
    for seed in (4, 4, 5):
        with adapted(base, RECIPE, new_tokens=NEW_TOKENS, seed=seed):
            starts.append({name: value.clone() for name, value in base.named_parameters() if value.requires_grad})
    wide, narrow, key, layers, rows = 16, 12, 8, 2, len(NEW_TOKENS)
    attention = 2 * (wide + wide) + 2 * (wide + key)  # query and output, key and value
    heads = 1 if base.config.tie_word_embeddings else 2
    trained = 3 * layers * (attention + 3 * (wide + narrow)) + heads * rows * wide
    assert sum(value.numel() for value in starts[0].values()) == trained
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_without_a_rank_every_weight_is_trained(base: PreTrainedModel) -> None:
    with adapted(base, ModelRecipe(), new_tokens=NEW_TOKENS, seed=0):
        assert all(value.requires_grad for value in base.parameters())
        assert not any("lora" in name for name, _ in base.named_modules())
