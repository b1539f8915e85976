"""The modules of a Llama-like transformers model, to be run in our own order.

LEADRE §3.4, §4.4.2. Weights, norms and rotary frequencies are the model's own; only attention is left to the caller.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from leadre.decoding.network.products import apply

ARCHITECTURES = frozenset({"hunyuan_v1_dense", "llama", "qwen2", "qwen3"})


def supports(model: PreTrainedModel) -> bool:
    """Tell whether `Network` computes the model: a known architecture, with full attention in all layers."""
    config = model.config
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    return (
        config.model_type in ARCHITECTURES
        and set(layer_types) == {"full_attention"}
        # these change with the longest prompt of a batch
        and model.get_decoder().rotary_emb.rope_type not in {"dynamic", "longrope"}
    )


class Network:
    """The embedding, layers, final norm and head of a model; `supports(model)`."""

    def __init__(self, model: PreTrainedModel) -> None:
        backbone = model.get_decoder()
        self.layers = [Layer(layer) for layer in backbone.layers]
        self.embed: nn.Module = backbone.embed_tokens
        self.norm: nn.Module = backbone.norm
        self.rotary: Any = backbone.rotary_emb
        self.head: nn.Linear = model.get_output_embeddings()
        self.device: torch.device = model.device

    def enter(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings [..., width] and the rotary cosines and sines [..., 1, head width] of tokens [...]."""
        hidden = self.embed(tokens)
        cosine, sine = self.rotary(hidden, positions)
        return hidden, cosine.unsqueeze(-2), sine.unsqueeze(-2)


class Layer:
    """One decoder layer, in the steps that prefill and beams share."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._attention, self._mlp = layer, layer.self_attn, layer.mlp
        self.head_width: int = self._attention.head_dim
        self.scale: float = self._attention.scaling
        # Qwen3 normalises queries and keys before rotating them, Hunyuan after, the others not at all.
        before, after = ("q_norm", "k_norm"), ("query_layernorm", "key_layernorm")
        self._query_norm, self._key_norm = (getattr(self._attention, name, None) for name in before)
        self._rotated_query_norm, self._rotated_key_norm = (getattr(self._attention, name, None) for name in after)

    def enter(self, hidden: Tensor) -> Tensor:
        """Normalise hidden states [..., width] for the projections."""
        normed: Tensor = self._layer.input_layernorm(hidden)
        return normed

    def keys_values(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [..., key heads, head width] of normalised states [..., width]."""
        keys = _normalise(self._heads(self._attention.k_proj, normed), self._key_norm)
        keys = _normalise(_rotate(keys, cosine, sine), self._rotated_key_norm)
        return keys, self._heads(self._attention.v_proj, normed)

    def queries(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return queries [..., heads, head width] of normalised states [..., width]."""
        queries = _normalise(self._heads(self._attention.q_proj, normed), self._query_norm)
        return _normalise(_rotate(queries, cosine, sine), self._rotated_query_norm)

    def leave(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output [..., width] for its input and what it attended to [..., heads, head width]."""
        hidden = hidden + apply(self._attention.o_proj, attended.flatten(-2))
        normed, mlp = self._layer.post_attention_layernorm(hidden), self._mlp
        return hidden + apply(mlp.down_proj, mlp.act_fn(apply(mlp.gate_proj, normed)) * apply(mlp.up_proj, normed))

    def _heads(self, projection: nn.Linear, normed: Tensor) -> Tensor:
        return torch.unflatten(apply(projection, normed), -1, (-1, self.head_width))


def _normalise(heads: Tensor, norm: nn.Module | None) -> Tensor:
    return heads if norm is None else norm(heads)


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate [..., heads, head width] by its position (RoPE, halves convention)."""
    low, high = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-high, low), dim=-1) * sine


def longest_prompt(model: PreTrainedModel, *, levels: int) -> int | None:
    """Return how many tokens a prompt may have: the model's positions less the codes fed, all but the last."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return None if positions is None else positions - (levels - 1)
