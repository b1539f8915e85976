"""An engine with a memory: the arms of one world ask much the same. Ours."""

from __future__ import annotations

from collections.abc import Sequence

from leadre.decoding.engine import Engine, Score
from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask


class Remembering:
    """An engine that answers what it was asked before from memory: arms of one world ask much the same.

    Args:
        engine: what answers first.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[tuple[int, ...], int, bytes], list[Beam]] = {}

    @property
    def index_version(self) -> str:
        """The engine's."""
        return self._engine.index_version

    @property
    def score(self) -> Score:
        """The engine's."""
        return self._engine.score

    def over(self, index: AdIndex) -> Engine:
        """Return the engine itself over another revision, with nothing remembered."""
        return self._engine.over(index)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Answer as the engine would."""
        masks = list(filters) if filters is not None else [None] * len(prompts)
        keys = [
            (tuple(prompt), beam_width, b"" if mask is None else mask.words.tobytes())
            for prompt, mask in zip(prompts, masks, strict=True)
        ]
        new = [at for at, key in enumerate(keys) if key not in self._known]
        if new:
            found = self._engine.generate(
                [prompts[at] for at in new], beam_width=beam_width, filters=[masks[at] for at in new]
            )
            self._known.update(zip([keys[at] for at in new], found, strict=True))
        return [self._known[key] for key in keys]
