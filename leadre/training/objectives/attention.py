"""Causal attention by plain matrix products: on CPUs and short prompts the fastest way to train.

LEADRE §4.3 (training). PyTorch's fused CPU kernel walks blocks made for long sequences: its backward pass takes 7 times
as long at 44 tokens, 5 times at 128, twice at 384, and needs less memory only when prompts are long.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody gives it
from transformers import AttentionInterface, PreTrainedModel

NAME = "leadre_causal"
LONGEST_TOKENS = 512
"""Longer batches take PyTorch's kernel: the scores of all pairs of tokens would fill the memory."""


def causal_attention(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    __: torch.Tensor | None,
    scaling: float | None = None,
    **___: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the past, for right-padded batches: no mask but the causal one.

    Args:
        query: [batch, heads, tokens, width].
        key: [batch, key heads, tokens, width]; key heads divide heads.
        value: likewise.
        scaling: of the scores; 1/sqrt(width) by default.

    Returns:
        [batch, tokens, heads, width], and no weights.
    """
    batch, heads, tokens, width = query.shape
    if key.shape[1] != heads:
        key, value = (kv.repeat_interleave(heads // kv.shape[1], dim=1) for kv in (key, value))
    if tokens > LONGEST_TOKENS:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return out.transpose(1, 2), None
    future = torch.full((tokens, tokens), float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    scores = torch.baddbmm(
        future.expand(batch * heads, tokens, tokens),
        query.flatten(0, 1),
        key.flatten(0, 1).transpose(1, 2),
        alpha=width**-0.5 if scaling is None else scaling,
    )
    out = torch.bmm(scores.softmax(dim=-1), value.flatten(0, 1)).view(batch, heads, tokens, width)
    return out.transpose(1, 2), None


def suits(model: PreTrainedModel) -> bool:
    """Return whether the model may train with `causal_attention`: on a CPU, and every layer sees all the past."""
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    windowed = getattr(model.config, "sliding_window", None) is not None and not hasattr(model.config, "layer_types")
    return model.device.type == "cpu" and layers == {"full_attention"} and not windowed


AttentionInterface.register(NAME, causal_attention)
