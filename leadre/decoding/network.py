"""The modules of a Llama-like transformers model, to be run in our own order.

LEADRE §3.4, §4.4.2. Weights, norms and rotary frequencies are the model's own; only attention is left to the caller.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})


def supports(model: PreTrainedModel) -> bool:
    """Tell whether `Network` computes the model: a known architecture, with full attention in all layers."""
    config = model.config
    layer_types = getattr(config, "layer_types", None) or ["full_attention"]
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        config.model_type in ARCHITECTURES
        and set(layer_types) == {"full_attention"}
        and rope_type not in {"dynamic", "longrope"}  # these change with the longest prompt of a batch
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
        self._layer, attention = layer, layer.self_attn
        self._attention = attention
        self.head_width: int = attention.head_dim
        self.scale: float = attention.scaling
        self._query_norm = getattr(attention, "q_norm", None)
        self._key_norm = getattr(attention, "k_norm", None)

    def enter(self, hidden: Tensor) -> Tensor:
        """Normalise hidden states [..., width] for the projections."""
        normed: Tensor = self._layer.input_layernorm(hidden)
        return normed

    def keys_values(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [..., key heads, head width] of normalised states [..., width]."""
        keys = self._heads(self._attention.k_proj(normed), self._key_norm)
        return _rotate(keys, cosine, sine), self._heads(self._attention.v_proj(normed), None)

    def queries(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return queries [..., heads, head width] of normalised states [..., width]."""
        return _rotate(self._heads(self._attention.q_proj(normed), self._query_norm), cosine, sine)

    def leave(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output [..., width] for its input and what it attended to [..., heads, head width]."""
        hidden = hidden + self._attention.o_proj(attended.flatten(-2))
        output: Tensor = hidden + self._layer.mlp(self._layer.post_attention_layernorm(hidden))
        return output

    def _heads(self, projected: Tensor, norm: nn.Module | None) -> Tensor:
        heads = torch.unflatten(projected, -1, (-1, self.head_width))
        if norm is not None:
            heads = norm(heads)
        return heads


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate [..., heads, head width] by its position (RoPE, halves convention)."""
    low, high = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-high, low), dim=-1) * sine
