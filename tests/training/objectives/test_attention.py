"""Attention by matrix products equals PyTorch's, forwards and backwards, and is given back after training."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from leadre.training.objectives import attention
from leadre.training.objectives.head import attach_head, detach_head


@pytest.mark.parametrize(("key_heads", "tokens", "scaling"), [(6, 11, None), (2, 17, 0.3), (3, 515, None)])
def test_it_equals_scaled_dot_product_attention(key_heads: int, tokens: int, scaling: float | None) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 6, tokens, 4, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, key_heads, tokens, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, _ = attention.causal_attention(torch.nn.Identity(), query, key, value, None, scaling=scaling)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    ).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), (query, key, value)),
        torch.autograd.grad((theirs * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


def test_a_model_in_training_has_the_same_hidden_states_and_afterwards_its_own_attention(
    model: PreTrainedModel,
) -> None:
    ids = torch.arange(3, 39).view(3, 12)
    before = model(input_ids=ids).logits
    attach_head(model)
    assert model.config._attn_implementation == attention.NAME
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    detach_head(model)
    assert model.config._attn_implementation == "sdpa"


def test_models_with_windows_keep_their_attention(model: PreTrainedModel) -> None:
    assert attention.suits(model)
    model.config.layer_types = ["sliding_attention"]
    assert not attention.suits(model)
