"""Where keys are in short lists: a hash table a list, built and asked for many lists at once, in arrays.

What retrieved ads have in common with a target (the ad, an S-ID prefix, a category, an advertiser) is a key that both
have. Comparing every target with every ad of its list costs n times as much as looking its keys up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: Knuth's multiplicative hashing


def hashes(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return what tables are asked by, of any shape."""
    hashed: NDArray[np.uint32] = ((keys * _SPREAD) >> np.uint64(32)).astype(np.uint32)
    return hashed


class KeyPlaces:
    """The keys of G lists of n at most, each list with a table of its own.

    Args:
        listed: uint64[G, n]; 0 is no key.
        slots: to a key, at least. With many, two keys seldom meet; a table of 20 keys still fits a core's first cache.

    Attributes:
        own: [G, n], the first place of each key in its own list, from 1; 0 for no key.
    """

    def __init__(self, listed: NDArray[np.uint64], *, slots: int = 64) -> None:
        groups, n = listed.shape
        bits = max(slots * n - 1, 1).bit_length()
        self._slots, self._shift, self._width = 1 << bits, np.uint32(32 - bits), n + 1
        self._listed = np.concatenate((np.zeros((groups, 1), np.uint64), listed), axis=1).reshape(-1)
        self._table = np.zeros(groups << bits, dtype=np.min_scalar_type(n))
        self._probes = 0
        places = np.zeros(groups * n, dtype=np.int64)
        waiting = np.flatnonzero(listed)
        keys, group = listed.reshape(-1)[waiting], waiting // n
        hashed = hashes(keys)
        while len(waiting):
            slot = self._slot(hashed, group, self._probes)
            free = np.flatnonzero(self._table[slot] == 0)[::-1]  # backwards: the first of several is written last
            self._table[slot[free]] = (waiting - group * n + 1)[free]
            holder = self._table[slot].astype(np.int64)
            there = self._listed[group * self._width + holder] == keys
            places[waiting[there]] = holder[there]
            left = np.flatnonzero(~there)
            waiting, keys, group, hashed = waiting[left], keys[left], group[left], hashed[left]
            self._probes += 1
        self.own = places.reshape(groups, n)

    def candidates(self, hashed: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return which of the keys with these hashes may be in their list, as flat positions: [G, T] to [k], rising."""
        slot = (hashed >> self._shift).astype(np.int64)
        slot += np.arange(0, len(self._table), self._slots)[:, None]
        return np.flatnonzero(self._table.take(slot) != 0)

    def find(self, keys: NDArray[np.uint64], group: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first place of each key in the list of its group, from 1; 0 for one that is not there, [k]."""
        hashed = hashes(keys)
        places = self._table.take(self._slot(hashed, group, 0)).astype(np.int64)
        wrong = np.flatnonzero(self._listed.take(group * self._width + places) != keys)
        for probe in range(1, self._probes):
            wrong = wrong[places[wrong] > 0]
            if not len(wrong):
                break
            places[wrong] = self._table.take(self._slot(hashed[wrong], group[wrong], probe))
            wrong = wrong[self._listed.take(group[wrong] * self._width + places[wrong]) != keys[wrong]]
        places[wrong] = 0
        return places

    def _slot(self, hashed: NDArray[np.uint32], group: NDArray[np.int64], probe: int) -> NDArray[np.int64]:
        slot = (hashed >> self._shift).astype(np.int64)
        if probe:
            slot = (slot + probe) % self._slots
        slot += group * self._slots
        return slot
