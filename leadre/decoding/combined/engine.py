"""The engine of a release that combines two lists: the LLM's beams and the signal's best ads, ordered by the ranker.

Ours; LEADRE §3.4 orders by P_LLM alone. No ad is lost that one of the two has near its top, as the fusion in the beam
may lose one whose prefix the other finds unlikely. Filters, index revisions and prompts are those of any engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leadre.decoding.combined.features import gather
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.engine import Engine, Score, beams_at, check_request
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.decoding.steps import Step, stepwise
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask

CANDIDATES = 50
"""Ads of either list, unless more beams are asked for (ours)."""
_CELLS = 1 << 25  # prompts x ads whose probabilities are held at once: 256 MB


class RankedEngine:
    """An engine whose lists are the ranker's order of the LLM's best ads and the signal's.

    Its log-probabilities are the ranker's scores: their differences are log-odds between ads of one list. What they add
    up to is not known, and lists under different filters do not compare: how sure the LLM is depends on the filter.

    Args:
        engine: the LLM alone, its score `raw` or `level`: what it says of an ad must not depend on the filter.
        signal: over the engine's index.
        ranker: fitted on such candidates.

    Raises:
        ConfigError: the engine's score is `valid`.
    """

    def __init__(self, engine: Engine, *, signal: IndexedSignal, ranker: Ranker) -> None:
        if engine.score == "valid":
            raise ConfigError(
                "the ranker compares log-probabilities under two filters, which score 'valid' does not allow; decode "
                "by 'level', or with collaborative_weight 0"
            )
        self._engine, self._signal, self._ranker = engine, signal, ranker

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._engine.index_version

    @property
    def score(self) -> Score:
        """What the LLM's log-probabilities are normalised over."""
        return self._engine.score

    def over(self, index: AdIndex) -> RankedEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        return RankedEngine(self._engine.over(index), signal=self._signal.over(index), ranker=self._ranker)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first. See `leadre.decoding.engine.Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract.
            BrokenModel: the model gives NaN.
        """
        index = self._signal.index
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._signal.vocabulary.size,
            longest_prompt=None,  # the engine knows it, and counts rows as we do
            leaves=len(index),
        )
        answer: list[list[Beam]] = []
        step = max(1, _CELLS // max(1, len(index)))
        for start in range(0, len(prompts), step):
            answer += self._ranked(prompts[start : start + step], masks[start : start + step], beam_width=beam_width)
        return answer

    def steps(
        self, prompt: Sequence[int], *, beam_width: int, mask: LiveMask | None = None, towards: int | None = None
    ) -> list[Step]:
        """Return the levels of the LLM's search for candidates. See `leadre.decoding.steps.Stepwise.steps`.

        Raises:
            InvalidInput: a request outside the contract.
            ConfigError: the engine does not tell its steps.
        """
        width = max(CANDIDATES, beam_width)
        return stepwise(self._engine).steps(prompt, beam_width=width, mask=mask, towards=towards)

    def _ranked(
        self, prompts: Sequence[Sequence[int]], masks: Sequence[LiveMask | None], *, beam_width: int
    ) -> list[list[Beam]]:
        each = max(CANDIDATES, beam_width)
        candidates = gather(self._engine, self._signal, prompts, each=each, filters=masks)
        scores = self._ranker.scores(candidates)
        order = np.lexsort((-scores, candidates.request))
        ends = np.searchsorted(candidates.request, np.arange(len(prompts) + 1))
        lists = []
        for row in range(len(prompts)):
            best = order[ends[row] : ends[row + 1]][:beam_width]
            lists.append(beams_at(self._signal.index, candidates.leaf[best], scores[best].tolist()))
        return lists
