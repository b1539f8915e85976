"""An engine that generates ads as texts: beam search under a trie of texts, over the same models as for S-IDs.

LEADRE §5.2.5, Table 6. A text's probability is that of all its tokens and of the end token behind them, each over the
whole vocabulary: the probability that the model gives the text, neither normalised over the tokens that may follow nor
by length, which would prefer forced or long texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from leadre.decoding.engine import Score, beams_at, check_request, check_revision
from leadre.decoding.exact.hf import HfDecoder
from leadre.decoding.exact.search import Int64s, Reading, segmented_top
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.decoding.network import layers
from leadre.domain.retrieval import Beam
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.experiments.generated_texts.trie import INSIDE, TextTrie
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnyToken(Vocabulary):
    """Levels whose codes are all tokens, so that a decoder made for S-IDs reads texts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "level_offsets", (0,) * len(self.code_counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beams:
    """Texts as far as they are generated, grouped by prompt, best first.

    Args:
        prompt: int64[beams], ascending.
        node: int64[beams], of the trie.
        score: float64[beams], log-probabilities.
        row: int64[beams], where the log-probabilities of the next token stand; -1 behind an end.
    """

    prompt: Int64s
    node: Int64s
    score: NDArray[np.float64]
    row: Int64s


class TextEngine:
    """Generates ads by their texts. All prompts of a call are read together: the caller's batch bounds the memory.

    Args:
        model: set to evaluation mode.
        texts: token ids for each row of the index, an end token last; several ads may share a text.
        index: the ads.
        precedence: int64[N], which of the ads of a shared text comes first, the lowest value.
        vocabulary_size: token ids are below it.

    Raises:
        InvalidInput: texts or precedence that are not one an ad, or a text that begins with another.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        texts: Sequence[Sequence[int]],
        index: AdIndex,
        precedence: Int64s,
        vocabulary_size: int,
    ) -> None:
        if not len(texts) == len(index) == len(precedence):
            raise InvalidInput(
                f"{len(texts)} texts and {len(precedence)} precedences for {len(index)} ads; give one an ad"
            )
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row in np.argsort(precedence, kind="stable").tolist():
            rows_of.setdefault(tuple(texts[row]), []).append(row)
        self._trie, self._rows, self._index = TextTrie(list(rows_of)), list(rows_of.values()), index
        make = SharedPrefixDecoder if layers.supports(model) else HfDecoder
        vocabulary = _AnyToken(text_size=0, code_counts=(vocabulary_size,) * self._trie.longest)
        self._decoder = make(model.eval(), vocabulary=vocabulary, score=self.score)

    @property
    def index_version(self) -> str:
        """The index whose ads this engine generates."""
        return self._index.version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return "raw"

    def over(self, index: AdIndex) -> TextEngine:
        """Return this engine.

        Raises:
            ReleaseMismatch: `index` is another version, or holds other ads: their texts are fixed.
        """
        check_revision(index, index_version=self.index_version)
        if not np.array_equal(index.ad_ids, self._index.ad_ids):
            raise ReleaseMismatch("a text engine knows the texts of its own ads alone; make one for this revision")
        return self

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the ads of the best texts of each prompt. See `leadre.decoding.engine.Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract, or a filter: there are none for texts.
            BrokenModel: the model gives NaN.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._decoder.vocabulary_size,
            longest_prompt=self._decoder.longest_prompt,
            leaves=self._index.trie.leaves,
        )
        if any(mask is not None for mask in masks):
            raise InvalidInput("ads generated as texts are not filtered; ask without filters", column="filters")
        answer: list[list[Beam]] = [[] for _ in prompts]
        if prompts:
            found = search_texts(self._decoder.read(prompts), self._trie, prompts=len(prompts), beam_width=beam_width)
            texts = self._trie.text_of[found.node].tolist()
            for prompt, text, score in zip(found.prompt.tolist(), texts, found.score.tolist(), strict=True):
                rows = self._rows[text][: beam_width - len(answer[prompt])]
                answer[prompt] += beams_at(self._index, np.array(rows, np.int64), [score] * len(rows))
        return answer


def search_texts(reading: Reading, trie: TextTrie, *, prompts: int, beam_width: int) -> _Beams:
    """Search the likeliest texts of several prompts at once.

    A text that has ended keeps its place among the beams until better ones push it out; as a longer text is never
    likelier, the search ends when all beams have ended.

    Args:
        reading: the prompts, read.
        trie: of the texts.
        prompts: how many.
        beam_width: texts to keep of each prompt at any length.

    Returns:
        Beams that have all ended, at most `beam_width` a prompt.
    """
    beams = _Beams(
        prompt=np.arange(prompts),
        node=np.zeros(prompts, np.int64),
        score=np.zeros(prompts),
        row=np.arange(prompts),
    )
    log_probabilities = reading.first()
    for step in range(1, trie.longest + 1):
        ended = np.flatnonzero(trie.text_of[beams.node] != INSIDE)
        grown = trie.children(beams.node)  # none of those that have ended
        rows = beams.row[grown.parent]
        gained = log_probabilities[rows, grown.code].astype(np.float64)
        prompt = np.concatenate([beams.prompt[ended], beams.prompt[grown.parent]])
        order = np.argsort(prompt, kind="stable")
        prompt = prompt[order]
        node = np.concatenate([beams.node[ended], grown.node])[order]
        score = np.concatenate([beams.score[ended], beams.score[grown.parent] + gained])[order]
        parent_row = np.concatenate([np.full(len(ended), -1), rows])[order]
        token = np.concatenate([np.full(len(ended), -1), grown.code])[order]
        best = segmented_top(score, prompt, segments=prompts, width=beam_width)
        going_on = trie.text_of[node[best]] == INSIDE
        row = np.where(going_on, np.cumsum(going_on) - 1, -1)
        beams = _Beams(prompt=prompt[best], node=node[best], score=score[best], row=row)
        if not going_on.any():
            break
        log_probabilities = reading.next(step, parent_row[best][going_on], token[best][going_on])
    return beams
