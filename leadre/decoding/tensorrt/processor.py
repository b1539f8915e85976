"""Our beam search inside TensorRT-LLM's: a logits processor that decides which beams live and keeps their exact scores.

LEADRE §3.4, §4.4.2. TensorRT-LLM 1.4 (PyTorch backend) calls a processor, then applies log-softmax, adds each beam's
sum and keeps the best K of all beams' tokens. A processor that only masks would score renormalised over the valid
children, and it could not even find them: the token ids it is shown are those of the slots, not of the beams' paths.
So this one runs Algorithm 2 itself, as `leadre.decoding.exact.search` does, and writes logits that make the choice
after it come out as its own. The sums in TensorRT-LLM then carry the order of the beams and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leadre.decoding.engine import Score
from leadre.decoding.scores import code_log_probabilities, level_blocks
from leadre.errors import BrokenModel, ConfigError
from leadre.indexing.trie.torch_trie import TorchLiveMask, TorchTrie
from leadre.prompts.vocabulary import Vocabulary

MAX_BEAM_WIDTH = 512
_ORDER_STEP = 2.0**-11  # between neighbouring beams' sums: over 100 times what float32 rounds in five levels
_LEAST_MASS = 1e-30
SPREAD = 3
"""Tokens a beam that a vocabulary must have at least."""


class TrieProcessor:
    """Guides one request; its beams are read from it afterwards.

    It never raises while TensorRT-LLM runs, where an exception would end the whole executor: `result` does.

    Args:
        trie: all ads, on the device of the logits.
        live: the ads that may be generated, at least one; None for all.
        vocabulary: where the levels' tokens are.
        score: what log-probabilities are normalised over.
        beam_width: B, at most the width TensorRT-LLM runs with.
        width: that width.
        prompt_tokens: length of the request's prompt.
        device: of the logits.
    """

    def __init__(
        self,
        trie: TorchTrie,
        *,
        live: TorchLiveMask | None,
        vocabulary: Vocabulary,
        score: Score,
        beam_width: int,
        width: int,
        prompt_tokens: int,
        device: torch.device | str,
    ) -> None:
        self._trie, self._live, self._score_of, self._beam_width = trie, live, score, beam_width
        self._blocks, self._width, self._prompt_tokens = level_blocks(vocabulary), width, prompt_tokens
        self._nodes = torch.zeros(1, dtype=torch.int64, device=device)
        self._scores = torch.zeros(1, dtype=torch.float64, device=device)
        self._tokens: list[int] = []
        self._depth = 0
        self._problem: Exception | None = None

    def __call__(
        self,
        req_id: int,  # noqa: ARG002  the signature is TensorRT-LLM's
        logits: Tensor,
        token_ids: Sequence[Sequence[int]],
        stream_ptr: int | None,  # noqa: ARG002  None in the PyTorch backend
        client_id: int | None,  # noqa: ARG002
    ) -> None:
        """Choose this step's beams and overwrite the logits so that TensorRT-LLM chooses them too.

        Args:
            req_id: not used.
            logits: float32 [rows, 1, vocabulary], changed in place; one row for the prompt, later one a slot.
            token_ids: what each slot has emitted, prompt included, not corrected for beams changing slots.
            stream_ptr: not used.
            client_id: not used.
        """
        if self._problem is not None or self._depth == len(self._blocks):
            return
        try:
            self._check(logits, token_ids)
            self._step(logits[:, 0])
        except Exception as error:  # noqa: BLE001  kept for `result`, see the class
            self._problem = error

    def __deepcopy__(self, memo: dict[int, Any]) -> TrieProcessor:
        """Stay the same object when sampling parameters are copied: the answer is read from it."""
        return self

    def __reduce__(self) -> Any:
        """Refuse to be sent to another process, where the answer would be lost.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "TensorRT-LLM would run the trie's logits processor in a worker process; set "
            "TLLM_WORKER_USE_SINGLE_PROCESS=1 before the process starts (one GPU an engine, no tensor parallelism)"
        )

    def result(self) -> tuple[list[int], list[float]]:
        """Return the chosen leaves and their log-probabilities, best first.

        Raises:
            BrokenModel: the logits held NaN.
            ConfigError: TensorRT-LLM behaved otherwise than this processor was written for.
        """
        if self._problem is not None:
            raise self._problem
        if self._depth < len(self._blocks):
            raise ConfigError(
                f"TensorRT-LLM asked for {self._depth} of {len(self._blocks)} codes; it must run this processor at "
                "every step: check max_tokens and the version"
            )
        return self._nodes.tolist(), self._scores.tolist()

    def _check(self, logits: Tensor, token_ids: Sequence[Sequence[int]]) -> None:
        """Compare what TensorRT-LLM shows with what was written at the last step."""
        if logits.dtype != torch.float32:
            raise ConfigError(f"TensorRT-LLM gives logits as {logits.dtype}; the order of beams needs float32")
        expected = self._prompt_tokens + self._depth
        if len(token_ids[0]) != expected:
            raise ConfigError(
                f"TensorRT-LLM shows {len(token_ids[0])} tokens at step {self._depth}, expected {expected}; "
                "disable the overlap scheduler and chunked prefill"
            )
        if self._depth and [int(ids[-1]) for ids in token_ids[: len(self._tokens)]] != self._tokens:
            raise ConfigError(
                f"TensorRT-LLM chose other beams than it was given at step {self._depth}; "
                "its beam search is not the one that this adapter was checked against"
            )

    def _step(self, logits: Tensor) -> None:
        """Extend the beams by one code. The same order as `leadre.decoding.exact.search.search`."""
        block = self._blocks[self._depth]
        log_probabilities = code_log_probabilities(logits[: len(self._nodes)], block, score=self._score_of)
        if torch.isnan(log_probabilities.sum()):
            raise BrokenModel(
                "the model gives NaN for the next code; its weights or its precision are broken: quantise it again"
            )
        parents, codes, nodes = self._trie.children(self._depth, self._nodes, live=self._live)
        scores = self._scores[parents] + log_probabilities[parents, codes].double()
        best = torch.sort(scores, descending=True, stable=True).indices[: self._beam_width]
        self._nodes, self._scores = nodes[best], scores[best]
        tokens = codes[best] + block.start
        steer(logits, parents[best], tokens, width=self._width)
        self._tokens = tokens.tolist()
        self._depth += 1


def steer(logits: Tensor, parents: Tensor, tokens: Tensor, *, width: int) -> None:
    """Overwrite logits so that log-softmax, adding the slots' sums and top-k choose exactly these beams, in order.

    Beam j gets the sum `T - j * step`, T falling by the same amount for all at every step: its log-probability is
    `(parent - j) * step - c`. With `c = log(most chosen in one row) + rows * step` no row exceeds probability 1. What a
    row lacks is spread evenly over its first 3 * `width` tokens, each of which then stays below every chosen one; it is
    not spread over all, because float32 sums 150,000 equal terms too coarsely. Slots that no beam fills hold such
    tokens, and go on losing.

    Args:
        logits: float32 [rows, vocabulary], changed in place; the vocabulary has 3 * `width` tokens or more.
        parents: int64 [beams], the slot each beam grows from.
        tokens: int64 [beams], best first.
        width: beams that TensorRT-LLM runs with, at least as many as are chosen.
    """
    rows, spread = len(logits), SPREAD * width
    chosen = torch.bincount(parents, minlength=rows)
    ranks = torch.arange(len(parents), device=logits.device)
    most = math.log(max(int(chosen.max()), 1)) + rows * _ORDER_STEP
    beams = (parents - ranks).double() * _ORDER_STEP - most
    mass = torch.zeros(rows, dtype=torch.float64, device=logits.device).index_add_(0, parents, beams.exp())
    others = spread - torch.bincount(parents[tokens < spread], minlength=rows)
    logits.fill_(-torch.inf)
    logits[:, :spread] = torch.log((1 - mass).clamp(min=_LEAST_MASS) / others).float()[:, None]
    logits[parents, tokens] = beams.float()
