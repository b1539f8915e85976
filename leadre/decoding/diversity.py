"""Variety in lists: the best ad of each category gets a share of the list's probability, against the "cocoon".

LEADRE §5.2.3 measures diversity (concentration, abundance) but has no control for it; this one is ours. With share e a
list is ordered by (1 - e) P(ad) + e P(list) / (categories of the list), the second term for the best ad of each of them
alone: as if with probability e the user were shown the best ad of a category drawn at random. So a new category comes
up where the ads it passes are hardly likelier, and nowhere else. The list keeps its ads; only their order changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine, Score
from leadre.decoding.steps import Step, stepwise
from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.category_level import telling_categories
from leadre.indexing.trie import LiveMask


def with_variety(engine: Engine, *, index: AdIndex, share: float) -> Engine:
    """Return an engine whose lists are ordered for variety; the engine itself for a share of 0."""
    return VariedEngine(engine, index=index, share=share) if share else engine


class VariedEngine:
    """An engine whose lists are ordered by the mixture above; its log-probabilities are the mixture's.

    Args:
        engine: over `index`.
        index: says which ad is of which category, at the level that tells its ads apart.
        share: e, at least 0 and below 1.
    """

    def __init__(self, engine: Engine, *, index: AdIndex, share: float) -> None:
        self._engine, self._index, self._share = engine, index, share
        self._categories = telling_categories(index).of_rows

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._engine.index_version

    @property
    def score(self) -> Score:
        """What the log-probabilities that are mixed are normalised over."""
        return self._engine.score

    def over(self, index: AdIndex) -> VariedEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        return VariedEngine(self._engine.over(index), index=index, share=self._share)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the engine's own ads of each prompt in the mixture's order. See `Engine.generate`.

        Raises:
            InvalidInput: as the engine.
        """
        lists = self._engine.generate(prompts, beam_width=beam_width, filters=filters)
        return [self._varied(beams) for beams in lists]

    def steps(
        self, prompt: Sequence[int], *, beam_width: int, mask: LiveMask | None = None, towards: int | None = None
    ) -> list[Step]:
        """Return the search's levels, before the list is ordered. See `leadre.decoding.steps.Stepwise.steps`.

        Raises:
            InvalidInput: as the engine.
            ConfigError: the engine does not tell its steps.
        """
        return stepwise(self._engine).steps(prompt, beam_width=beam_width, mask=mask, towards=towards)

    def _varied(self, beams: list[Beam]) -> list[Beam]:
        if not beams:
            return beams
        rows = self._index.rows(np.array([beam.ad_id for beam in beams], np.int64))
        mixed = mixture(np.array([beam.log_probability for beam in beams]), self._categories[rows], share=self._share)
        order = np.argsort(-mixed, kind="stable").tolist()
        scores = mixed.tolist()
        return [Beam(sid=beams[at].sid, ad_id=beams[at].ad_id, log_probability=scores[at]) for at in order]


def mixture(
    log_probabilities: NDArray[np.float64], categories: NDArray[np.int64], *, share: float
) -> NDArray[np.float64]:
    """Return the logarithms of the mixture for one list; their exponentials add up to what the list's added up to.

    Args:
        log_probabilities: float64[n], falling.
        categories: int64[n].
        share: e.
    """
    mixed = log_probabilities + np.log1p(-share)
    _, best = np.unique(categories, return_index=True)
    whole = np.logaddexp.reduce(log_probabilities)
    mixed[best] = np.logaddexp(mixed[best], whole + np.log(share / len(best)))
    bounded: NDArray[np.float64] = np.minimum(mixed, 0.0)  # a sum of 1 may be a rounding error more
    return bounded
