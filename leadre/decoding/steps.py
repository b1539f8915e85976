"""What a beam search did level by level, for whoever explains a list. LEADRE §3.4, Algorithm 2.

A trace is the search's own: an engine that can tell its steps notes them while it searches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from leadre.errors import ConfigError
from leadre.indexing.trie import LiveMask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One level of one request's search: every candidate, and which of them became beams.

    Args:
        parent: int64 [candidates], places in `kept` of the step before; 0, the root, at the first.
        code: int64 [candidates], codes of the level.
        node: int64 [candidates], trie nodes.
        score: float64 [candidates], the LLM's log-probability of the prefix.
        rank: float64 [candidates], what candidates were ordered by: `score`, or the fused one.
        kept: int64 [beams], places among the candidates, best first.
    """

    parent: NDArray[np.int64]
    code: NDArray[np.int64]
    node: NDArray[np.int64]
    score: NDArray[np.float64]
    rank: NDArray[np.float64]
    kept: NDArray[np.int64]


@runtime_checkable
class Stepwise(Protocol):
    """An engine that can tell the steps of its search."""

    def steps(
        self, prompt: Sequence[int], *, beam_width: int, mask: LiveMask | None = None, towards: int | None = None
    ) -> list[Step]:
        """Return the levels of the search that `Engine.generate` runs for this request; none when no ad is live.

        Args:
            prompt: token ids.
            beam_width: B of Algorithm 2.
            mask: the ads that may be generated; None: every ad.
            towards: a leaf that is live. The search then keeps one beam, the path to this leaf, whatever its
                probability: each step's candidates are the path's code and its siblings.

        Raises:
            InvalidInput: as `Engine.generate`.
            ConfigError: an engine inside this one cannot tell its steps.
        """
        ...


def stepwise(engine: object) -> Stepwise:
    """Return the engine as one that can tell its steps.

    Raises:
        ConfigError: it cannot.
    """
    if not isinstance(engine, Stepwise):
        raise ConfigError(
            f"{type(engine).__name__} does not tell the steps of its search; load the release with LEADRE_ENGINE=auto"
        )
    return engine
