"""Attention in the pieces the shared prefix needs: over a prompt, over a beam's own codes, and the two merged.

LEADRE §3.4, §4.4.2. Softmax over a union of keys is a weighted mean of softmaxes over its parts, weighted by their
log-sum-exps; so a prompt's keys and values are never copied to its beams.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from leadre.decoding.network.products import linear

_ROWS = 128  # query rows at once: their scores stay in the cache


class Prompts:
    """How long each prompt of a padded batch is.

    Args:
        lengths: tokens a prompt, padded on the right to the longest.
        device: where the states are.
    """

    def __init__(self, lengths: Sequence[int], *, device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.count, self.longest = len(self.lengths), max(self.lengths)
        self.tokens = torch.tensor(self.lengths, device=device)
        self._padding: Tensor | None = None
        if min(self.lengths) < self.longest:
            self._padding = torch.arange(self.longest, device=device) >= self.tokens[:, None]

    def part(self, low: int, high: int) -> Prompts:
        """Return the prompts low to high, padded as they are."""
        part = Prompts(self.lengths[low:high], device=self.tokens.device)
        part.longest = self.longest
        if self._padding is not None:
            part._padding = self._padding[low:high]
        return part

    def bias(self, like: Tensor) -> Tensor | None:
        """Return -inf where a prompt has no token, [prompts, 1, 1, tokens]; None where no prompt is padded."""
        if self._padding is None:
            return None
        bias = torch.zeros(self._padding.shape, dtype=like.dtype, device=like.device)
        return bias.masked_fill(self._padding, -torch.inf)[:, None, None]


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, prompts: Prompts, scale: float) -> tuple[Tensor, Tensor]:
    """Attend to whole prompts.

    Args:
        queries: [prompts, key heads, rows, head width].
        keys: [prompts, key heads, tokens, head width].
        values: like `keys`.
        prompts: which of the tokens are there.
        scale: of the scores.

    Returns:
        The outputs, like `queries`, and their log-sum-exps [prompts, key heads, rows].
    """
    if queries.device.type != "cpu":
        return attend_written_out(queries, keys, values, bias=prompts.bias(queries), scale=scale)
    output, log_sum = torch.empty_like(queries), torch.empty(queries.shape[:3])
    for prompt, length in enumerate(prompts.lengths):
        for head in range(queries.shape[1]):
            # Scores are float32 whatever the model is: rounded to bf16 they would be off by some hundredths.
            key, value = keys[prompt, head, :length].float(), values[prompt, head, :length].t()
            for low in range(0, queries.shape[2], _ROWS):
                rows = slice(low, low + _ROWS)
                scores = linear(queries[prompt, head, rows].float() * scale, key)
                weights = torch.softmax(scores, dim=-1)
                output[prompt, head, rows] = linear(weights.to(value.dtype), value)
                # The largest weight is exp(largest score - log-sum-exp), and never near 0.
                log_sum[prompt, head, rows] = scores.amax(dim=-1) - weights.amax(dim=-1).log_()
    return output, log_sum


def attend_written_out(
    queries: Tensor, keys: Tensor, values: Tensor, *, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend as the formula says: the reference, and what runs where there is no better kernel. See `attend`."""
    scores = (queries @ keys.mT * scale).float()
    if bias is not None:
        scores = scores + bias
    log_sum = torch.logsumexp(scores, dim=-1)
    return (scores - log_sum[..., None]).exp().to(values.dtype) @ values, log_sum


def attend_causal(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> Tensor:
    """Attend from every token to itself and those before it.

    Args:
        queries: [prompts, heads, tokens, head width].
        keys: [prompts, key heads, tokens, head width].
        values: like `keys`.
        scale: of the scores.

    Returns:
        The outputs, like `queries`. What stands behind a prompt's end is undefined.
    """
    group = queries.shape[1] // keys.shape[1]
    if queries.device.type != "cpu":
        return functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=group > 1
        )
    output = torch.empty_like(queries)
    later = torch.full((_ROWS, _ROWS), -torch.inf).triu_(1)
    for prompt in range(len(queries)):
        for head in range(queries.shape[1]):
            key, value = keys[prompt, head // group].float(), values[prompt, head // group].t()
            for low in range(0, queries.shape[2], _ROWS):
                high = min(low + _ROWS, queries.shape[2])
                scores = linear(queries[prompt, head, low:high].float() * scale, key[:high])
                scores[:, low:] += later[: high - low, : high - low]
                weights = torch.softmax(scores, dim=-1).to(value.dtype)
                output[prompt, head, low:high] = linear(weights, value[:, :high])
    return output


def attend_own(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from each beam to its own codes.

    Args:
        queries: [beams, heads, head width].
        keys: [beams, codes, key heads, head width].
        values: like `keys`.
        scale: of the scores.

    Returns:
        The outputs, like `queries`, and their log-sum-exps [beams, heads].
    """
    folded = torch.unflatten(queries, 1, (keys.shape[2], -1))
    scores = (folded @ keys.permute(0, 2, 3, 1) * scale).float()  # [beams, key heads, group, codes]
    log_sum = torch.logsumexp(scores, dim=-1)
    weights = (scores - log_sum[..., None]).exp().to(values.dtype)
    return (weights @ values.transpose(1, 2)).flatten(1, 2), log_sum.flatten(1, 2)


def merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Merge two attentions over disjoint keys by their log-sum-exps: the softmax over both."""
    share = torch.sigmoid(one[1].float() - other[1])[..., None].to(one[0].dtype)
    return torch.lerp(other[0], one[0], share)
