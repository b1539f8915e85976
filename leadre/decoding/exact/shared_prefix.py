"""The fast exact decoder: every prompt is read once and its KV cache never copied, however many beams.

LEADRE §3.4, §4.4.2. The beams of a prompt are query rows of one attention call over the prompt; what they have
generated themselves (at most M rows) is attended to separately and the two are merged by their log-sum-exps. Equal to
transformers' logits up to rounding, for decoders built like Llama, Qwen2, Qwen3 and Hunyuan dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from leadre.decoding.engine import Score
from leadre.decoding.exact.search import Int64s
from leadre.decoding.network.attention import Prompts, attend, attend_causal, attend_own, merge
from leadre.decoding.network.layers import Network, longest_prompt
from leadre.decoding.scores import head_log_probabilities, level_blocks, to_host
from leadre.prompts.vocabulary import Vocabulary


class SharedPrefixDecoder:
    """Runs a Llama-like transformers model.

    Args:
        model: in evaluation mode; one that `leadre.decoding.network.layers.supports`.
        vocabulary: where the levels' tokens are.
        score: what log-probabilities are normalised over.
        prefill_tokens: prompts are read in chunks of about this many tokens, which keeps activations in the cache.
    """

    def __init__(
        self, model: PreTrainedModel, *, vocabulary: Vocabulary, score: Score, prefill_tokens: int = 2048
    ) -> None:
        self._network = Network(model)
        self.score, self._prefill_tokens = score, prefill_tokens
        self._blocks = level_blocks(vocabulary)
        self.vocabulary_size = vocabulary.size
        self.longest_prompt = longest_prompt(model, levels=len(self._blocks))

    def read(self, prompts: Sequence[Sequence[int]]) -> _SharedPrefixReading:
        """Read the prompts, padded on the right to the longest."""
        return _SharedPrefixReading(
            self._network, prompts, blocks=self._blocks, score=self.score, prefill_tokens=self._prefill_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beams:
    """Which prompt each beam has, int64 [beams], and which rows of the suffix hold its codes, int64 [beams, codes]."""

    prompt: Tensor
    ancestors: Tensor

    def grown(self, parents: Int64s, *, first: int) -> _Beams:
        """Return beams with one more code, whose keys and values go to the suffix rows from `first`."""
        rows = torch.from_numpy(parents).to(self.prompt.device)
        own = torch.arange(first, first + len(rows), device=rows.device)
        return _Beams(prompt=self.prompt[rows], ancestors=torch.cat([self.ancestors[rows], own[:, None]], dim=1))


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
        self._prompts = Prompts([len(prompt) for prompt in prompts], device=device)
        tokens = torch.zeros(self._prompts.count, self._prompts.longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.as_tensor(prompt)
        tokens = tokens.to(device)
        chunk = max(1, prefill_tokens // self._prompts.longest)
        parts = [
            self._prefill(tokens[low : low + chunk], self._prompts.part(low, low + chunk))
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
        self._beams = _Beams(
            prompt=torch.arange(len(prompts), device=device),
            ancestors=torch.zeros(len(prompts), 0, dtype=torch.int64, device=device),
        )

    @torch.inference_mode()
    def first(self) -> NDArray[np.float32]:
        """Return log P(code) of level 0: [prompts, codes of level 0]."""
        return self._log_probabilities(self._last, level=0)

    @torch.inference_mode()
    def next(self, level: int, parents: Int64s, codes: Int64s) -> NDArray[np.float32]:
        """Feed one code a beam. See `leadre.decoding.exact.search.Reading.next`."""
        self._beams = self._beams.grown(parents, first=self._fed)
        return self._log_probabilities(self._feed(level, [(self._beams, codes)]), level=level)

    @torch.inference_mode()
    def next_two(
        self, level: int, parents: Int64s, codes: Int64s, child_parents: Int64s, child_codes: Int64s
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feed beams and their children in one pass. See `leadre.decoding.exact.search.Reading.next_two`."""
        beams = self._beams.grown(parents, first=self._fed)
        self._beams = beams.grown(child_parents, first=self._fed + len(parents))
        hidden = self._feed(level, [(beams, codes), (self._beams, child_codes)])
        return (
            self._log_probabilities(hidden[: len(parents)], level=level),
            self._log_probabilities(hidden[len(parents) :], level=level + 1),
        )

    def _feed(self, level: int, fed: Sequence[tuple[_Beams, Int64s]]) -> Tensor:
        """Feed codes of level - 1, of level, ...; children may stand behind their parents. Returns [rows, width]."""
        network, device = self._network, self._network.device
        tokens, positions, parts, rows = [], [], [], 0
        for below, (beams, codes) in enumerate(fed):
            tokens.append(torch.from_numpy(codes + self._blocks[level - 1 + below].start))
            positions.append(self._prompts.tokens[beams.prompt] + level - 1 + below)
            parts.append((slice(rows, rows + len(codes)), beams.ancestors))
            rows += len(codes)
        self._fed += rows
        table = _Table(torch.cat([beams.prompt for beams, _ in fed]), prompts=self._prompts.count)
        hidden, cosine, sine = network.enter(torch.cat(tokens).to(device)[None], torch.cat(positions)[None])
        hidden, cosine, sine = hidden[0], cosine[0], sine[0]
        for number, layer in enumerate(network.layers):
            normed = layer.enter(hidden)
            keys, values = self._append(number, *layer.keys_values(normed, cosine, sine))
            queries = layer.queries(normed, cosine, sine)
            prefix = self._attend_prefix(number, queries, table=table, scale=layer.scale)
            own = [
                attend_own(queries[part], keys[ancestors], values[ancestors], scale=layer.scale)
                for part, ancestors in parts
            ]
            suffix = torch.cat([output for output, _ in own]), torch.cat([log_sum for _, log_sum in own])
            hidden = layer.leave(hidden, merge(prefix, suffix))
        normed_hidden: Tensor = network.norm(hidden)
        return normed_hidden

    def _prefill(self, tokens: Tensor, prompts: Prompts) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read prompts [prompts, tokens]: the last token's state [prompts, width], and keys and values a layer."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        hidden, cosine, sine = self._network.enter(tokens, positions)
        ends = prompts.tokens - 1
        last = (torch.arange(len(tokens), device=tokens.device), ends)
        cache = []
        for number, layer in enumerate(self._network.layers):
            normed = layer.enter(hidden)
            keys, values = (s.transpose(1, 2).contiguous() for s in layer.keys_values(normed, cosine, sine))
            cache.append((keys, values))
            if number + 1 < len(self._network.layers):
                queries = layer.queries(normed, cosine, sine).transpose(1, 2)
                hidden = layer.leave(hidden, attend_causal(queries, keys, values, scale=layer.scale).transpose(1, 2))
                continue
            # Nobody reads the last layer's output but at the last token.
            queries = layer.queries(normed[last], cosine[0, ends], sine[0, ends])
            folded = torch.unflatten(queries, 1, (keys.shape[1], -1))  # [prompts, key heads, group, head width]
            attended, _ = attend(folded, keys, values, prompts=prompts, scale=layer.scale)
            hidden = layer.leave(hidden[last], attended.flatten(1, 2))
        return self._network.norm(hidden), cache

    def _append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append [beams, key heads, head width] to a layer's suffix and return all of it."""
        earlier = self._suffix[layer]
        appended = (
            (keys, values) if earlier is None else (torch.cat([earlier[0], keys]), torch.cat([earlier[1], values]))
        )
        self._suffix[layer] = appended
        return appended

    def _attend_prefix(self, layer: int, queries: Tensor, *, table: _Table, scale: float) -> tuple[Tensor, Tensor]:
        """Attend from beams [beams, heads, head width] to their prompts: output alike, log-sum-exp [beams, heads]."""
        keys, values = self._prefix[layer]
        grouped = torch.unflatten(table.fill(queries), 2, (keys.shape[1], -1))  # [prompts, beams, key heads, group, :]
        folded = grouped.transpose(1, 2).flatten(2, 3)
        output, log_sum = attend(folded, keys, values, prompts=self._prompts, scale=scale)
        output = torch.unflatten(output, 2, (table.width, -1)).transpose(1, 2).flatten(2, 3)
        log_sum = torch.unflatten(log_sum, 2, (table.width, -1)).transpose(1, 2).flatten(2, 3)
        return table.read(output), table.read(log_sum)

    def _log_probabilities(self, hidden: Tensor, *, level: int) -> NDArray[np.float32]:
        return to_host(head_log_probabilities(hidden, self._network.head, self._blocks[level], score=self._score))


class _Table:
    """Beams in any order, laid out as [prompts, width]: width is the most beams that a prompt has."""

    def __init__(self, prompt: Tensor, *, prompts: int) -> None:
        counts = torch.bincount(prompt, minlength=prompts)
        self._prompts, self.width = prompts, int(counts.max())
        order = torch.argsort(prompt, stable=True)
        sorted_prompt = prompt[order]
        offset = torch.arange(len(prompt), device=prompt.device) - (counts.cumsum(0) - counts)[sorted_prompt]
        self._slot = torch.empty_like(prompt)
        self._slot[order] = sorted_prompt * self.width + offset

    def fill(self, states: Tensor) -> Tensor:
        """Lay states [beams, ...] out, [prompts, width, ...]; 0 where no beam is."""
        if self._prompts == 1:
            return states[None]
        table = states.new_zeros(self._prompts * self.width, *states.shape[1:])
        table[self._slot] = states
        return torch.unflatten(table, 0, (self._prompts, self.width))

    def read(self, table: Tensor) -> Tensor:
        """Return what `fill` laid out, [beams, ...]."""
        return table[0] if self._prompts == 1 else table.flatten(0, 1)[self._slot]
