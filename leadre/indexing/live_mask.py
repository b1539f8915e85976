"""Live masks: which ads may be generated now, as a bitmap with popcount ranks over the trie's leaves.

LEADRE §3.3, §3.4. How many live ads stand below a node is two look-ups, whatever the node's size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

Ints = NDArray[np.int64]
_WORD_BITS = 64


class LiveMask:
    """Which leaves may be generated, with counts per leaf range: 1.5 bits a leaf."""

    __slots__ = ("leaves", "live_leaves", "ranks", "words")

    def __init__(self, words: NDArray[np.uint64], leaves: int) -> None:
        """Wrap a bitmap.

        Args:
            words: uint64[leaves // 64 + 1]; leaf i is bit i % 64 of word i // 64, bits past the end are 0.
            leaves: number of leaves.
        """
        self.words, self.leaves = words, leaves
        self.ranks: NDArray[np.uint32] = np.zeros(len(words), np.uint32)
        counts = np.bitwise_count(words)
        np.cumsum(counts[:-1], dtype=np.uint32, out=self.ranks[1:])
        self.live_leaves = int(self.ranks[-1]) + int(counts[-1])

    @classmethod
    def of(cls, live: NDArray[np.bool_]) -> LiveMask:
        """Build the mask from one truth value a leaf, bool[N]."""
        packed = np.packbits(live, bitorder="little")
        octets: NDArray[np.uint8] = np.zeros((len(live) // _WORD_BITS + 1) * 8, np.uint8)
        octets[: len(packed)] = packed
        return cls(octets.view("<u8").astype(np.uint64, copy=False), len(live))

    def count(self, low: Ints, high: Ints) -> Ints:
        """Return how many live leaves each range [low, high) holds, int64[n]."""
        return self._before(high) - self._before(low)

    def __and__(self, other: LiveMask) -> LiveMask:
        """Return the mask of leaves that are live in both."""
        if self.leaves != other.leaves:
            raise InvalidInput(f"masks over {self.leaves} and {other.leaves} leaves: they belong to different indexes")
        return LiveMask(self.words & other.words, self.leaves)

    def _before(self, position: Ints) -> Ints:
        word = position >> 6
        below = (np.uint64(1) << (position & 63).astype(np.uint64)) - np.uint64(1)
        counts: Ints = self.ranks[word].astype(np.int64) + np.bitwise_count(self.words[word] & below)
        return counts
