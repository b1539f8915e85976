"""Live masks: which ads may be generated now, as a bitmap with popcount ranks over the trie's leaves.

LEADRE §3.3, §3.4. How many live ads stand below a node is two look-ups, whatever the node's size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

Ints = NDArray[np.int64]
_WORD_BITS = 64
_ONE, _LAST_BITS = np.uint64(1), np.uint64(_WORD_BITS - 1)


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

    @classmethod
    def full(cls, leaves: int) -> LiveMask:
        """Return the mask under which every leaf is live."""
        return cls.of(np.ones(leaves, np.bool_))

    @classmethod
    def all_of(cls, masks: Iterable[LiveMask]) -> LiveMask:
        """Return the mask of leaves that are live in every one of one or more masks; ranks are counted once.

        Raises:
            InvalidInput: no mask, or masks over different numbers of leaves.
        """
        given = list(masks)
        if not given:
            raise InvalidInput("no masks to combine; pass at least one, or decode without a filter")
        if len(sizes := sorted({mask.leaves for mask in given})) > 1:
            raise InvalidInput(f"masks over {sizes[0]} and {sizes[-1]} leaves: they belong to different indexes")
        words = given[0].words.copy()
        for mask in given[1:]:
            words &= mask.words
        return cls(words, sizes[0])

    def count(self, low: Ints, high: Ints) -> Ints:
        """Return how many live leaves each range [low, high) holds, int64[n]."""
        return self.before(high).astype(np.int64) - self.before(low)

    def before(self, leaf: Ints) -> NDArray[np.uint32]:
        """Return how many live leaves stand before each leaf (0 to N, not negative), uint32[n]."""
        word = leaf >> 6
        below = (_ONE << (leaf.view(np.uint64) & _LAST_BITS)) - _ONE
        below &= self.words.take(word)
        counts: NDArray[np.uint32] = self.ranks.take(word)
        counts += np.bitwise_count(below)
        return counts

    def without(self, leaves: Ints) -> LiveMask:
        """Return the mask without some leaves, int64[n], of which any may be there more than once."""
        words = self.words.copy()
        np.bitwise_and.at(words, leaves >> 6, ~(_ONE << (leaves.view(np.uint64) & _LAST_BITS)))
        return LiveMask(words, self.leaves)

    def __and__(self, other: LiveMask) -> LiveMask:
        """Return the mask of leaves that are live in both; `all_of` is for many."""
        return LiveMask.all_of((self, other))
