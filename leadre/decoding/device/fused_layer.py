"""A decoder layer whose norms, rotations and gates are one Triton kernel each instead of five to ten of torch's.

LEADRE §4.4.2. At some hundred rows, which is what the beams of a user are, a layer's time is the number of its kernels.
The formulas are those of `leadre.decoding.network.layers.Layer`; sums are float32 and rounded once.
"""

# Triton compiles the kernels' source and takes no type hints there.
# mypy: allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators, allow-untyped-defs
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from leadre.decoding.network.layers import Layer
from leadre.decoding.network.products import apply


class FusedLayer(Layer):
    """One decoder layer with RMS norms and a SiLU gate, on a GPU. See `leadre.decoding.network.layers.Layer`."""

    def enter(self, hidden: Tensor) -> Tensor:
        """Normalise hidden states [..., width] for the projections."""
        return add_norm(hidden, None, self._layer.input_layernorm)[1]

    def keys_values(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [..., key heads, head width] of normalised states [..., width]."""
        keys = self._heads(self._attention.k_proj, normed)
        keys = rotate(keys, cosine, sine, before=self._key_norm, after=self._rotated_key_norm)
        return keys, self._heads(self._attention.v_proj, normed)

    def queries(self, normed: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return queries [..., heads, head width] of normalised states [..., width]."""
        queries = self._heads(self._attention.q_proj, normed)
        return rotate(queries, cosine, sine, before=self._query_norm, after=self._rotated_query_norm)

    def leave(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output [..., width] for its input and what it attended to [..., heads, head width]."""
        attended = apply(self._attention.o_proj, attended.flatten(-2))
        hidden, normed = add_norm(hidden, attended, self._layer.post_attention_layernorm)
        gated = gate(apply(self._mlp.gate_proj, normed), apply(self._mlp.up_proj, normed))
        return hidden + apply(self._mlp.down_proj, gated)


def add_norm(hidden: Tensor, added: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return `hidden` + `added` [..., width], and that normalised."""
    hidden = hidden.contiguous()
    total = hidden if added is None else torch.empty_like(hidden)
    normed, width = torch.empty_like(hidden), hidden.shape[-1]
    _add_norm[(hidden.numel() // width,)](
        hidden,
        hidden if added is None else added.contiguous(),
        norm.weight,
        total,
        normed,
        norm.variance_epsilon,
        width,
        ADD=added is not None,
        BLOCK=triton.next_power_of_2(width),
    )
    return total, normed


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, *, before: nn.Module | None, after: nn.Module | None) -> Tensor:
    """Rotate [..., heads, head width] by its position (RoPE, halves), normed before or after where there is a norm.

    Args:
        heads: queries or keys.
        cosine: [..., 1, head width]; its rows are those of `heads` or repeat over the outermost of them.
        sine: like `cosine`.
        before: RMS norm of a head's values before it is rotated.
        after: the same after it.
    """
    norm = before if before is not None else after
    heads, (count, width) = heads.contiguous(), heads.shape[-2:]
    rotated = torch.empty_like(heads)
    cosine, sine = cosine.reshape(-1, width).contiguous(), sine.reshape(-1, width).contiguous()
    _rotate[(heads.numel() // (count * width),)](
        heads,
        cosine,
        sine,
        heads if norm is None else norm.weight,
        rotated,
        0.0 if norm is None else norm.variance_epsilon,
        len(cosine),
        HEADS=count,
        HALF=width // 2,
        HEADS_BLOCK=triton.next_power_of_2(count),
        HALF_BLOCK=triton.next_power_of_2(width // 2),
        BEFORE=before is not None,
        AFTER=after is not None,
    )
    return rotated


def gate(gates: Tensor, states: Tensor) -> Tensor:
    """Return SiLU(gates) x states, all [..., width]."""
    gated = torch.empty_like(states)
    _gate[(triton.cdiv(states.numel(), 1024),)](gates, states, gated, states.numel(), BLOCK=1024)
    return gated


@triton.jit
def _add_norm(hidden, added, weight, total, normed, epsilon, width, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """One program a row."""
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = tl.program_id(0).to(tl.int64) * width + column
    values = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(added + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + at, values.to(total.dtype.element_ty), mask=inside)
    values *= 1.0 / tl.sqrt(tl.sum(values * values, axis=0) / width + epsilon)
    values *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + at, values.to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _normed(low, high, weight, half, column, in_half, epsilon):
    """Normalise heads, given as halves."""
    squares = tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)
    scale = (1.0 / tl.sqrt(squares / (2 * half) + epsilon))[:, None]
    low_weight = tl.load(weight + column, mask=in_half, other=0.0).to(tl.float32)
    high_weight = tl.load(weight + half + column, mask=in_half, other=0.0).to(tl.float32)
    return low * scale * low_weight[None, :], high * scale * high_weight[None, :]


@triton.jit
def _rotate(
    heads,
    cosine,
    sine,
    weight,
    rotated,
    epsilon,
    positions,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
):
    """One program a row of all heads."""
    row = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS_BLOCK), tl.arange(0, HALF_BLOCK)
    in_half = column < HALF
    there = (head < HEADS)[:, None] & in_half[None, :]
    at = (row * HEADS + head)[:, None] * (2 * HALF) + column[None, :]
    low = tl.load(heads + at, mask=there, other=0.0).to(tl.float32)
    high = tl.load(heads + at + HALF, mask=there, other=0.0).to(tl.float32)
    if BEFORE:
        low, high = _normed(low, high, weight, HALF, column, in_half, epsilon)
    angle = (row % positions) * (2 * HALF) + column
    low_cosine = tl.load(cosine + angle, mask=in_half, other=0.0).to(tl.float32)[None, :]
    high_cosine = tl.load(cosine + angle + HALF, mask=in_half, other=0.0).to(tl.float32)[None, :]
    low_sine = tl.load(sine + angle, mask=in_half, other=0.0).to(tl.float32)[None, :]
    high_sine = tl.load(sine + angle + HALF, mask=in_half, other=0.0).to(tl.float32)[None, :]
    turned_low = low * low_cosine - high * low_sine
    turned_high = high * high_cosine + low * high_sine
    if AFTER:
        turned_low, turned_high = _normed(turned_low, turned_high, weight, HALF, column, in_half, epsilon)
    tl.store(rotated + at, turned_low.to(rotated.dtype.element_ty), mask=there)
    tl.store(rotated + at + HALF, turned_high.to(rotated.dtype.element_ty), mask=there)


@triton.jit
def _gate(gates, states, gated, size, BLOCK: tl.constexpr):
    """One program a block."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    values = tl.load(gates + at, mask=inside, other=0.0).to(tl.float32)
    values = values / (1.0 + tl.exp(-values)) * tl.load(states + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(gated + at, values.to(gated.dtype.element_ty), mask=inside)
