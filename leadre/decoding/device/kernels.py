"""Which kernels a device has: Triton's and torch's fused attention on a GPU, written out in torch elsewhere.

LEADRE §4.4.2. Every fused kernel has its formula beside it; tests/decoding/device/triton_cases.py holds them equal.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor
from transformers import PreTrainedModel

from leadre.decoding.device import trie as device_trie
from leadre.decoding.network.attention import attend_own, attend_written_out, merge
from leadre.decoding.network.layers import Network

_WIDTHS = 8  # the fused attention takes heads of a multiple of this


@cache
def fused(device_type: str) -> ModuleType | None:
    """Return the module of Triton kernels where they run: on a GPU with Triton; None elsewhere."""
    if device_type != "cuda" or find_spec("triton") is None:
        return None
    from leadre.decoding.device import triton_kernels

    return triton_kernels


def network_of(model: PreTrainedModel) -> Network:
    """Return a model's network; on a GPU with layers whose norms, rotations and gates are one kernel each."""
    network = Network(model)
    if fused(network.device.type) is not None and model.config.hidden_act == "silu":
        from leadre.decoding.device.fused_layer import FusedLayer

        network.layers = [FusedLayer(layer) for layer in model.get_decoder().layers]
    return network


def score_children(device: torch.device) -> device_trie.ScoreChildren:
    """Return the trie step of a device, see `leadre.decoding.device.trie.score_children`."""
    module = fused(device.type)
    return device_trie.score_children if module is None else module.score_children


def attend_prompt(
    queries: Tensor, keys: Tensor, values: Tensor, *, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend to prompts.

    Args:
        queries: [users, key heads, rows, head width].
        keys: [users, key heads, tokens, head width].
        values: like `keys`.
        bias: [users, 1, 1, tokens], -inf where a prompt has no token.
        scale: of the scores.

    Returns:
        The outputs, like `queries`, and their log-sum-exps, float32 [users, key heads, rows].
    """
    if queries.device.type != "cuda" or queries.shape[3] % _WIDTHS:
        return attend_written_out(queries, keys, values, bias=bias, scale=scale)
    output, log_sum, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(
        queries,
        keys,
        values,
        attn_bias=bias.expand(*queries.shape[:3], keys.shape[2]),
        compute_log_sumexp=True,
        scale=scale,
    )
    return output, log_sum[..., : queries.shape[2]]  # it is padded to a multiple of 32


def attend_beams(
    queries: Tensor,
    *,
    prefix: tuple[Tensor, Tensor],
    suffix: tuple[Tensor, Tensor],
    ancestors: Tensor,
    bias: Tensor,
    scale: float,
) -> Tensor:
    """Attend from beams to their prompts and their own codes.

    Args:
        queries: [beams, heads, head width], grouped by user, as many of each.
        prefix: keys and values [users, key heads, tokens, head width].
        suffix: keys and values [rows, key heads, head width].
        ancestors: int64 [beams, codes], rows of the suffix.
        bias: as in `attend_prompt`.
        scale: of the scores.

    Returns:
        The outputs, like `queries`.
    """
    users, key_heads = prefix[0].shape[:2]
    grouped = torch.unflatten(torch.unflatten(queries, 0, (users, -1)), 2, (key_heads, -1))
    folded = grouped.transpose(1, 2).flatten(2, 3)  # [users, key heads, beams x group, head width]
    output, log_sum = attend_prompt(folded, *prefix, bias=bias, scale=scale)
    module = fused(queries.device.type)
    if module is not None:
        merged: Tensor = module.attend_suffix(
            queries, keys=suffix[0], values=suffix[1], ancestors=ancestors, prefix=(output, log_sum), scale=scale
        )
        return merged
    return attend_suffix(
        queries, keys=suffix[0], values=suffix[1], ancestors=ancestors, prefix=(output, log_sum), scale=scale
    )


def attend_suffix(
    queries: Tensor, *, keys: Tensor, values: Tensor, ancestors: Tensor, prefix: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """Attend from each beam to its own codes and merge with what it found in its prompt.

    Args:
        queries: [beams, heads, head width], grouped by user.
        keys: [rows, key heads, head width].
        values: like `keys`.
        ancestors: int64 [beams, codes], rows of `keys`.
        prefix: outputs [users, key heads, beams of a user x group, head width] and their log-sum-exps.
        scale: of the scores.

    Returns:
        The outputs, like `queries`.
    """
    group = queries.shape[1] // keys.shape[1]
    output, log_sum = (torch.unflatten(part, 2, (-1, group)).transpose(1, 2).flatten(0, 1) for part in prefix)
    own = attend_own(queries, keys[ancestors], values[ancestors], scale=scale)
    return merge((output.flatten(1, 2), log_sum.flatten(1, 2)), own)
