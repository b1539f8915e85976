"""Category caps: no more than so many ads of one group in a list, against the "information cocoon".

LEADRE §5.2.3 measures diversity (concentration, abundance) but has no control for it; this one is ours. It is exact in
what it says: within a group the list has the ads that the engine gives when only that group may be generated, and the
list is the best of those.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leadre.decoding.engine import Engine, Score
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask


class CappedEngine:
    """An engine whose lists hold at most so many ads of one first-level category.

    Args:
        engine: over `index`; one whose scores compare between filters (`raw` or `level`).
        index: says which ad is of which category.
        most: ads of a category.
    """

    def __init__(self, engine: Engine, *, index: AdIndex, most: int) -> None:
        self._engine, self._most = engine, most
        self._groups = first_category_groups(index)

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._engine.index_version

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over."""
        return self._engine.score

    def over(self, index: AdIndex) -> CappedEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        return CappedEngine(self._engine.over(index), index=index, most=self._most)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt under the cap. See `generate_capped`."""
        return generate_capped(
            self._engine, prompts, beam_width=beam_width, groups=self._groups, most=self._most, filters=filters
        )


def first_category_groups(index: AdIndex) -> tuple[LiveMask, ...]:
    """Return one mask a first-level category that some ad has: together they cover every ad, once."""
    return tuple(LiveMask.of(index.first_categories == category) for category in np.unique(index.first_categories))


def generate_capped(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    *,
    beam_width: int,
    groups: Sequence[LiveMask],
    most: int,
    filters: Sequence[LiveMask | None] | None = None,
) -> list[list[Beam]]:
    """Return the best ads of each prompt, at most `most` of each group.

    A prompt is read once; the beams are `most` a group, so the cost is that of a beam width of `most` x groups.

    Args:
        engine: one whose scores compare between filters (`raw` or `level`).
        prompts: as in `Engine.generate`.
        beam_width: the length of a list.
        groups: disjoint masks; an ad of none of them is not generated.
        most: ads of a group.
        filters: as in `Engine.generate`.

    Raises:
        ConfigError: the engine's score is `valid`.
        InvalidInput: `most` below 1, or as `Engine.generate`.
    """
    if engine.score == "valid":
        raise ConfigError(
            "category caps compare scores between filters, which `valid` scores do not; decode by `level`"
        )
    if most < 1:
        raise InvalidInput(f"{most}; a category cap is at least 1 (0 in a recipe means no cap)", column="most")
    masks = filters if filters is not None else [None] * len(prompts)
    if len(masks) != len(prompts):
        raise InvalidInput(
            f"{len(masks)} filters for {len(prompts)} prompts; give one a prompt or none", column="filters"
        )
    both = {id(mask): [group if mask is None else group & mask for group in groups] for mask in masks}
    found = engine.generate(
        [prompt for prompt in prompts for _ in groups],
        beam_width=min(most, beam_width),
        filters=[group for mask in masks for group in both[id(mask)]],
    )
    return [
        sorted(
            (beam for beams in found[row * len(groups) : (row + 1) * len(groups)] for beam in beams),
            key=lambda beam: (-beam.log_probability, beam.sid.codes),
        )[:beam_width]
        for row in range(len(prompts))
    ]
