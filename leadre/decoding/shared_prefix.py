"""The fast exact decoder: every prompt is read once and its KV cache never copied, however many beams.

LEADRE §3.4, §4.4.2. The beams of a prompt are query rows of one attention call over the prompt; what they have
generated themselves (at most M rows) is attended to separately and the two are merged by their log-sum-exps. Equal to
transformers' logits up to rounding, for decoders built like Llama, Qwen2 and Qwen3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from leadre.decoding.engine import Score
from leadre.decoding.hf import longest_prompt
from leadre.decoding.network import Network
from leadre.decoding.scores import head_log_probabilities, level_blocks, to_host
from leadre.decoding.search import Int64s
from leadre.prompts.vocabulary import Vocabulary


class SharedPrefixDecoder:
    """Runs a Llama-like transformers model.

    Args:
        model: in evaluation mode; one that `leadre.decoding.network.supports`.
        vocabulary: where the levels' tokens are.
        score: what log-probabilities are normalised over.
        prefill_tokens: prompts are read in chunks of about this many tokens, which keeps activations in the cache.
    """

    def __init__(
        self, model: PreTrainedModel, *, vocabulary: Vocabulary, score: Score, prefill_tokens: int = 2048
    ) -> None:
        self._network = Network(model)
        self._score, self._prefill_tokens = score, prefill_tokens
        self._blocks = level_blocks(vocabulary)
        self.vocabulary_size = vocabulary.size
        self.longest_prompt = longest_prompt(model, levels=len(self._blocks))

    def read(self, prompts: Sequence[Sequence[int]]) -> _SharedPrefixReading:
        """Read the prompts, padded on the right to the longest."""
        return _SharedPrefixReading(
            self._network, prompts, blocks=self._blocks, score=self._score, prefill_tokens=self._prefill_tokens
        )


class _SharedPrefixReading:
    """Keys and values of the prompts, and, appended step by step, those of every code ever fed."""

    @torch.inference_mode()
    def __init__(
        self,
        network: Network,
        prompts: Sequence[Sequence[int]],
        *,
        blocks: Sequence[slice],
        score: Score,
        prefill_tokens: int,
    ) -> None:
        self._network, self._blocks, self._score = network, blocks, score
        device, layers = network.device, len(network.layers)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(self._lengths.max())
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt)
        tokens, self._lengths = tokens.to(device), self._lengths.to(device)
        self._bias = None
        if bool((self._lengths < longest).any()):
            self._bias = _padding_bias(self._lengths, longest, like=network.head.weight)
        chunk = max(1, prefill_tokens // longest)
        parts = [
            self._prefill(tokens[low : low + chunk], self._lengths[low : low + chunk])
            for low in range(0, len(prompts), chunk)
        ]
        self._last = torch.cat([last for last, _ in parts])
        # [prompts, key heads, tokens, head width], one pair a layer
        self._prefix = [
            (torch.cat([kv[layer][0] for _, kv in parts]), torch.cat([kv[layer][1] for _, kv in parts]))
            for layer in range(layers)
        ]
        self._suffix: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self._fed = 0  # rows of the suffix so far
        self._prompt = torch.arange(len(prompts), device=device)
        self._ancestors = torch.zeros(len(prompts), 0, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def first(self) -> NDArray[np.float32]:
        """Return log P(code) of level 0: [prompts, codes of level 0]."""
        return self._log_probabilities(self._last, level=0)

    @torch.inference_mode()
    def next(self, level: int, parents: Int64s, codes: Int64s) -> NDArray[np.float32]:
        """Feed one code a beam and return log P(code) of `level`: [beams, codes of `level`]."""
        network, device = self._network, self._network.device
        rows = torch.from_numpy(parents).to(device)
        self._prompt = self._prompt[rows]
        own = torch.arange(self._fed, self._fed + len(rows), device=device)
        self._ancestors = torch.cat([self._ancestors[rows], own[:, None]], dim=1)
        self._fed += len(rows)
        slot, width = _slots(self._prompt, prompts=len(self._lengths))
        tokens = torch.from_numpy(codes + self._blocks[level - 1].start).to(device)
        positions = self._lengths[self._prompt] + level - 1
        hidden, cosine, sine = network.enter(tokens[None], positions[None])
        hidden, cosine, sine = hidden[0], cosine[0], sine[0]
        for number, layer in enumerate(network.layers):
            normed = layer.enter(hidden)
            keys, values = self._append(number, *layer.keys_values(normed, cosine, sine))
            queries = layer.queries(normed, cosine, sine)
            prefix = self._attend_prefix(number, queries, slot=slot, width=width, scale=layer.scale)
            suffix = _attend_suffix(queries, keys[self._ancestors], values[self._ancestors], scale=layer.scale)
            hidden = layer.leave(hidden, _merge(prefix, suffix))
        return self._log_probabilities(network.norm(hidden), level=level)

    def _prefill(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read prompts [prompts, tokens]: the last token's state [prompts, width], and keys and values a layer."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        hidden, cosine, sine = self._network.enter(tokens, positions)
        last = (torch.arange(len(tokens), device=tokens.device), lengths - 1)
        cache = []
        for number, layer in enumerate(self._network.layers):
            normed = layer.enter(hidden)
            keys, values = (states.transpose(1, 2) for states in layer.keys_values(normed, cosine, sine))
            cache.append((keys, values))
            if number + 1 < len(self._network.layers):
                queries = layer.queries(normed, cosine, sine).transpose(1, 2)
                repeats = queries.shape[1] // keys.shape[1]
                attended = functional.scaled_dot_product_attention(
                    queries,
                    keys.repeat_interleave(repeats, dim=1) if repeats > 1 else keys,
                    values.repeat_interleave(repeats, dim=1) if repeats > 1 else values,
                    is_causal=True,
                    scale=layer.scale,
                )
                hidden = layer.leave(hidden, attended.transpose(1, 2))
                continue
            # Nobody reads the last layer's output but at the last token.
            hidden = hidden[last]
            queries = layer.queries(normed[last], cosine[0, lengths - 1], sine[0, lengths - 1])
            folded = torch.unflatten(queries, 1, (keys.shape[1], -1))  # [prompts, key heads, group, head width]
            bias = None if self._bias is None else _padding_bias(lengths, tokens.shape[1], like=queries)
            attended, _ = _attend(folded, keys, values, bias=bias, scale=layer.scale)
            hidden = layer.leave(hidden, attended.flatten(1, 2))
        return self._network.norm(hidden), cache

    def _append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append [beams, key heads, head width] to a layer's suffix and return all of it."""
        earlier = self._suffix[layer]
        appended = (
            (keys, values) if earlier is None else (torch.cat([earlier[0], keys]), torch.cat([earlier[1], values]))
        )
        self._suffix[layer] = appended
        return appended

    def _attend_prefix(
        self, layer: int, queries: Tensor, *, slot: Tensor, width: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attend from beams [beams, heads, head width] to their prompts: output alike, log-sum-exp [beams, heads]."""
        keys, values = self._prefix[layer]
        prompts, key_heads, _, head_width = keys.shape
        group = queries.shape[1] // key_heads
        table = queries.new_zeros(prompts * width, key_heads, group, head_width)
        table[slot] = torch.unflatten(queries, 1, (key_heads, group))
        folded = torch.unflatten(table, 0, (prompts, width)).transpose(1, 2).flatten(2, 3)
        output, log_sum = _attend(folded, keys, values, bias=self._bias, scale=scale)
        output = torch.unflatten(output, 2, (width, group)).transpose(1, 2).reshape(prompts * width, -1, head_width)
        log_sum = torch.unflatten(log_sum, 2, (width, group)).transpose(1, 2).reshape(prompts * width, -1)
        return output[slot], log_sum[slot]

    def _log_probabilities(self, hidden: Tensor, *, level: int) -> NDArray[np.float32]:
        return to_host(head_log_probabilities(hidden, self._network.head, self._blocks[level], score=self._score))


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend without a causal mask: output [a, heads, rows, head width] and log-sum-exp [a, heads, rows]."""
    if queries.device.type == "cpu":
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries, keys, values, attn_mask=bias, scale=scale
        )
        return output, log_sum
    return _attend_written_out(queries, keys, values, bias=bias, scale=scale)


def _attend_written_out(
    queries: Tensor, keys: Tensor, values: Tensor, *, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    scores = (queries @ keys.mT * scale).float()
    if bias is not None:
        scores = scores + bias
    log_sum = torch.logsumexp(scores, dim=-1)
    return (scores - log_sum[..., None]).exp().to(values.dtype) @ values, log_sum


def _attend_suffix(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from beams [beams, heads, head width] to their own codes [beams, codes, key heads, head width]."""
    folded = torch.unflatten(queries, 1, (keys.shape[2], -1))
    scores = (folded @ keys.permute(0, 2, 3, 1) * scale).float()  # [beams, key heads, group, codes]
    log_sum = torch.logsumexp(scores, dim=-1)
    weights = (scores - log_sum[..., None]).exp().to(values.dtype)
    return (weights @ values.transpose(1, 2)).flatten(1, 2), log_sum.flatten(1, 2)


def _merge(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Merge two attentions over disjoint keys by their log-sum-exps: the softmax over both."""
    share = torch.sigmoid(one[1].float() - other[1])[..., None].to(one[0].dtype)
    return torch.lerp(other[0], one[0], share)


def _padding_bias(lengths: Tensor, longest: int, *, like: Tensor) -> Tensor:
    """Return -inf where a prompt has no token, [prompts, 1, 1, tokens]."""
    padding = torch.arange(longest, device=like.device) >= lengths[:, None]
    return torch.zeros(padding.shape, dtype=like.dtype, device=like.device).masked_fill(padding, -torch.inf)[
        :, None, None
    ]


def _slots(prompt: Tensor, *, prompts: int) -> tuple[Tensor, int]:
    """Place beams, grouped by prompt, in a table [prompts, width]: each beam's flat slot, and the width."""
    counts = torch.bincount(prompt, minlength=prompts)
    width = int(counts.max())
    offset = torch.arange(len(prompt), device=prompt.device) - (counts.cumsum(0) - counts)[prompt]
    return prompt * width + offset, width
