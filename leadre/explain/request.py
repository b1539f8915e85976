"""What a user's search is asked: the prompt and the filter that a nearline worker would hand its engine.

LEADRE §3.4, §4.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from leadre.domain.users import Context
from leadre.indexing.trie import LiveMask
from leadre.retrieval.retriever import Retriever


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One user's request.

    Args:
        prompt: token ids.
        mask: the ads that may be shown to the user; None: every ad of the index.
        leaves: ads of the index.
    """

    prompt: tuple[int, ...]
    mask: LiveMask | None
    leaves: int

    def allows(self, leaf: int) -> bool:
        """Return whether an ad may be shown."""
        return self.mask is None or bool(self.live(np.array([leaf]), np.array([leaf + 1]))[0])

    def live(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many ads of each leaf range may be shown, int64[n]."""
        return high - low if self.mask is None else self.mask.count(low, high)

    def with_ad(self, leaf: int) -> LiveMask | None:
        """Return the filter as if an ad could be shown, whatever is against it."""
        if self.mask is None or self.allows(leaf):
            return self.mask
        words = self.mask.words.copy()
        words[leaf >> 6] |= np.uint64(1) << np.uint64(leaf & 63)
        return LiveMask(words, self.leaves)


def request_of(retriever: Retriever, context: Context, *, now: datetime) -> Request:
    """Return what the retriever's engine is asked for a user; the catalog's changes are read first.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    retriever.read_inventory(now)
    loaded = retriever.loaded
    (mask,) = loaded.filters([context], inventory=retriever.inventory, now=now)
    return Request(prompt=tuple(loaded.encoder.encode(loaded.prompt(context))), mask=mask, leaves=len(loaded.index))
