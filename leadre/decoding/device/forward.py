"""One pass of the device engine: prompts in, the best leaves out, of fixed shape, and the host not asked between.

LEADRE §3.4, §4.4.2. As leadre.decoding.exact.shared_prefix reads prompts and feeds beams, but a user always has all
its rows: a beam without an ad under it carries -inf and is fed like the others. So the kernels of a pass depend on its
shape alone, and a CUDA graph replays them without the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadre.decoding.device import kernels
from leadre.decoding.device.trie import DeviceTrie, MaskStack, stable_top
from leadre.decoding.engine import Score
from leadre.decoding.network.attention import attend_causal
from leadre.decoding.network.layers import Network
from leadre.decoding.network.products import linear
from leadre.decoding.scores import head_log_probabilities
from leadre.errors import BrokenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PassShape:
    """What decides a pass's kernels: users, tokens of the longest prompt (both rounded up), and beams a user."""

    users: int
    tokens: int
    beams: int


class DevicePass:
    """Decodes up to `shape.users` prompts at once.

    Args:
        network: the LLM.
        blocks: each level's tokens in the vocabulary.
        score: what log-probabilities are normalised over.
        trie: all ads.
        masks: the filters; at least `shape.users` slots.
        shape: fixed sizes.
        prefill_tokens: prompts are read in chunks of about this many tokens.
    """

    def __init__(
        self,
        network: Network,
        *,
        blocks: tuple[slice, ...],
        score: Score,
        trie: DeviceTrie,
        masks: MaskStack,
        shape: PassShape,
        prefill_tokens: int,
    ) -> None:
        self._network, self._blocks, self._score, self._trie, self._masks = network, blocks, score, trie, masks
        self._shape, self._chunk = shape, max(1, prefill_tokens // shape.tokens)
        device = network.device
        self._tokens = torch.zeros(shape.users, shape.tokens, dtype=torch.int64, device=device)
        # a user's prompt length, filter slot and root; all int64 [users]
        self._users = torch.zeros(3, shape.users, dtype=torch.int64, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output = self._users  # of the last run

    def decode(
        self, prompts: Sequence[Sequence[int]], slots: Sequence[int]
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return each prompt's best leaves and their log-probabilities, best first.

        Args:
            prompts: at most `shape.users`, none empty nor longer than `shape.tokens`.
            slots: where each prompt's filter is, -1 without one.

        Raises:
            BrokenModel: the model gives NaN.
        """
        tokens = np.zeros(self._tokens.shape, np.int64)
        users = np.zeros(self._users.shape, np.int64)
        users[0], users[1] = 1, -1
        for row, (prompt, slot) in enumerate(zip(prompts, slots, strict=True)):
            tokens[row, : len(prompt)] = prompt
            users[:, row] = len(prompt), slot, self._trie.root
        self._tokens.copy_(torch.from_numpy(tokens))
        self._users.copy_(torch.from_numpy(users))
        with torch.inference_mode():
            if self._graph is None:
                self._output = self._run()
            else:
                self._graph.replay()
            packed = self._output.cpu().numpy()  # the only wait for the device
        if packed[-1]:
            raise BrokenModel(
                "the model gives NaN for the next code; its weights or its precision are broken: "
                "train or convert it again"
            )
        leaves, scores = packed[:-1].reshape(2, self._shape.users, -1)
        scores = scores.view(np.float64)
        found = scores > -np.inf
        return [(leaves[row][found[row]], scores[row][found[row]]) for row in range(len(prompts))]

    def capture(self, pool: Any) -> Any:
        """Record the pass's kernels as a CUDA graph, which later calls replay; only on a GPU.

        Args:
            pool: memory of earlier graphs to be shared, as passes never run at the same time; None at first.

        Returns:
            The memory pool.
        """
        self._users[0] = 1
        stream = torch.cuda.Stream(self._network.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._network.device))
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(2):  # compile kernels and fill the libraries' work spaces before recording
                    self._run()
            torch.cuda.current_stream(self._network.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self._output = self._run()
        self._graph = graph
        return graph.pool()

    def _run(self) -> Tensor:
        """Run Algorithm 2: leaves, scores (their bits) and whether there was a NaN, all in one int64 tensor."""
        users, device = self._shape.users, self._network.device
        lengths, slots, nodes = self._users
        beams = _Beams(self, lengths)
        hidden = beams.prefill(self._tokens, chunk=self._chunk)
        score = torch.zeros(users, dtype=torch.float64, device=device)
        broken = torch.zeros(1, dtype=torch.bool, device=device)
        score_children = kernels.score_children(device)
        for depth, (level, block) in enumerate(zip(self._trie.levels, self._blocks, strict=True)):
            logits = self._logits(hidden, block)
            broken |= torch.isnan(logits.sum())  # the sum is NaN if any term is
            rows, codes = len(logits) // users, logits.shape[1]
            candidates, children = score_children(
                level,
                logits,
                beam_score=score,
                node=nodes,
                slot=slots.repeat_interleave(rows, output_size=users * rows),
                masks=self._masks,
                score=self._score,
            )
            best, chosen = stable_top(candidates.view(users, -1), min(self._shape.beams, rows * codes))
            score, nodes = best.flatten(), children.view(users, -1).gather(1, chosen).flatten()
            if depth + 1 < len(self._blocks):  # nothing follows the last code: it is never fed
                parents = chosen // codes + torch.arange(users, device=device)[:, None] * rows
                hidden = beams.feed(parents.flatten(), (chosen % codes).flatten() + block.start)
        return torch.cat([nodes >> 31, score.view(torch.int64), broken.long()])

    def _logits(self, hidden: Tensor, block: slice) -> Tensor:
        """Return float32 [beams, codes]: logits, or under "raw" log-probabilities."""
        head = self._network.head
        if self._score == "raw":
            return head_log_probabilities(hidden, head, block, score="raw")
        return linear(hidden, head.weight[block], None if head.bias is None else head.bias[block]).float()


class _Beams:
    """The prompts read and the beams behind them; it lives for one run."""

    def __init__(self, owner: DevicePass, lengths: Tensor) -> None:
        self._network, self._lengths = owner._network, lengths
        self._users, tokens = owner._tokens.shape
        padding = torch.arange(tokens, device=lengths.device) >= lengths[:, None]
        zeros = torch.zeros(padding.shape, dtype=self._network.head.weight.dtype, device=lengths.device)
        self._bias = zeros.masked_fill(padding, -torch.inf)[:, None, None]  # [users, 1, 1, tokens]
        self._prefix: list[tuple[Tensor, Tensor]] = []  # a layer: keys, values [users, key heads, tokens, head width]
        self._suffix: list[tuple[Tensor, Tensor]] = []  # a layer: keys, values [rows fed, key heads, head width]
        self._ancestors = torch.zeros(self._users, 0, dtype=torch.int64, device=lengths.device)

    def prefill(self, tokens: Tensor, *, chunk: int) -> Tensor:
        """Read prompts [users, tokens]; return the last tokens' states [users, width], normed."""
        parts = [self._prefill(tokens, slice(low, low + chunk)) for low in range(0, self._users, chunk)]
        if len(parts) == 1:
            last, self._prefix = parts[0]
            return last
        layers = zip(*(cache for _, cache in parts), strict=True)
        self._prefix = [(torch.cat([k for k, _ in layer]), torch.cat([v for _, v in layer])) for layer in layers]
        return torch.cat([last for last, _ in parts])

    def _prefill(self, tokens: Tensor, part: slice) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        tokens, ends = tokens[part], self._lengths[part] - 1
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        hidden, cosine, sine = self._network.enter(tokens, positions)
        last = (torch.arange(len(tokens), device=tokens.device), ends)
        cache = []
        for number, layer in enumerate(self._network.layers):
            normed = layer.enter(hidden)
            keys, values = (s.transpose(1, 2).contiguous() for s in layer.keys_values(normed, cosine, sine))
            cache.append((keys, values))
            if number + 1 < len(self._network.layers):
                # What stands behind a prompt's end is read by nobody: causal attention needs no padding mask.
                queries = layer.queries(normed, cosine, sine).transpose(1, 2)
                hidden = layer.leave(hidden, attend_causal(queries, keys, values, scale=layer.scale).transpose(1, 2))
                continue
            queries = layer.queries(normed[last], cosine[0, ends], sine[0, ends])
            folded = torch.unflatten(queries, 1, (keys.shape[1], -1))
            attended, _ = kernels.attend_prompt(folded, keys, values, bias=self._bias[part], scale=layer.scale)
            hidden = layer.leave(hidden[last], attended.flatten(1, 2))
        return self._network.norm(hidden), cache

    def feed(self, parents: Tensor, tokens: Tensor) -> Tensor:
        """Feed one token a beam.

        Args:
            parents: int64 [beams], the row of the call before (at first, the user) that each beam grew from.
            tokens: int64 [beams], grouped by user, as many of each.

        Returns:
            States [beams, width], normed.
        """
        network, fed = self._network, len(self._suffix[0][0]) if self._suffix else 0
        codes, own = self._ancestors.shape[1], torch.arange(len(parents), device=parents.device) + fed
        self._ancestors = torch.cat([self._ancestors[parents], own[:, None]], dim=1)
        positions = (self._lengths + codes).repeat_interleave(len(parents) // self._users, output_size=len(parents))
        hidden, cosine, sine = network.enter(tokens[None], positions[None])
        hidden, cosine, sine = hidden[0], cosine[0], sine[0]
        for number, layer in enumerate(network.layers):
            normed = layer.enter(hidden)
            keys, values = layer.keys_values(normed, cosine, sine)
            if fed:
                earlier = self._suffix[number]
                keys, values = torch.cat([earlier[0], keys]), torch.cat([earlier[1], values])
                self._suffix[number] = keys, values
            else:
                self._suffix.append((keys, values))
            queries = layer.queries(normed, cosine, sine)
            attended = kernels.attend_beams(
                queries,
                prefix=self._prefix[number],
                suffix=(keys, values),
                ancestors=self._ancestors,
                bias=self._bias,
                scale=layer.scale,
            )
            hidden = layer.leave(hidden, attended)
        normed_hidden: Tensor = network.norm(hidden)
        return normed_hidden
