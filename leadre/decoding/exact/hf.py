"""A decoder for any transformers causal LM: each prompt is read once, its KV cache copied to its beams.

LEADRE §3.4. The plain exact decoder; `shared_prefix` does the same work without the copies for known architectures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from leadre.decoding.engine import Score
from leadre.decoding.exact.search import Int64s
from leadre.decoding.network.layers import longest_prompt
from leadre.decoding.scores import code_log_probabilities, level_blocks, to_host
from leadre.prompts.vocabulary import Vocabulary


class HfDecoder:
    """Runs a transformers causal LM.

    Args:
        model: in evaluation mode.
        vocabulary: where the levels' tokens are.
        score: what log-probabilities are normalised over.
    """

    def __init__(self, model: PreTrainedModel, *, vocabulary: Vocabulary, score: Score) -> None:
        self._model, self.score = model, score
        self._blocks = level_blocks(vocabulary)
        self.vocabulary_size = vocabulary.size
        self.longest_prompt = longest_prompt(model, levels=len(self._blocks))

    def read(self, prompts: Sequence[Sequence[int]]) -> _HfReading:
        """Read the prompts, padded on the left to the longest."""
        return _HfReading(self._model, prompts, blocks=self._blocks, score=self.score)


class _HfReading:
    """The KV cache of all beams, one row a beam."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, blocks: Sequence[slice], score: Score
    ) -> None:
        self._model, self._blocks, self._score = model, blocks, score
        longest = max(len(prompt) for prompt in prompts)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
        self._mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.as_tensor(prompt)
            self._mask[row, longest - len(prompt) :] = 1
        self._mask = self._mask.to(model.device)
        self._cache = DynamicCache(config=model.config)
        self._logits = self._step(tokens.to(model.device))

    @torch.inference_mode()
    def first(self) -> NDArray[np.float32]:
        """Return log P(code) of level 0: [prompts, codes of level 0]."""
        return to_host(code_log_probabilities(self._logits, self._blocks[0], score=self._score))

    def next(self, level: int, parents: Int64s, codes: Int64s) -> NDArray[np.float32]:
        """Feed one code a beam and return log P(code) of `level`: [beams, codes of `level`]."""
        rows = torch.from_numpy(parents).to(self._model.device)
        self._cache.batch_select_indices(rows)
        self._mask = torch.nn.functional.pad(self._mask[rows], (0, 1), value=1)
        tokens = torch.from_numpy(codes + self._blocks[level - 1].start).to(self._model.device)
        logits = self._step(tokens[:, None])
        return to_host(code_log_probabilities(logits, self._blocks[level], score=self._score))

    def next_two(
        self, level: int, parents: Int64s, codes: Int64s, child_parents: Int64s, child_codes: Int64s
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feed beams, then their children. See `leadre.decoding.exact.search.Reading.next_two`."""
        return self.next(level, parents, codes), self.next(level + 1, child_parents, child_codes)

    @torch.inference_mode()
    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed tokens [rows, n] and return the logits behind the last: [rows, vocabulary]."""
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits
