"""Where keys are in short lists: a hash table a list, built and asked for many lists at once, in arrays.

What retrieved ads have in common with a target (the ad, an S-ID prefix, a category, an advertiser) is a key that both
have. Comparing every target with every ad of its list costs n times as much as looking its keys up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: Knuth's multiplicative hashing


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
        self._slots, self._shift, self._width = 1 << bits, np.uint64(64 - bits), n + 1
        self._listed = np.concatenate((np.zeros((groups, 1), np.uint64), listed), axis=1).reshape(-1)
        self._table = np.zeros(groups << bits, dtype=np.min_scalar_type(n))
        self._probes = 0
        places = np.zeros(groups * n, dtype=np.int64)
        waiting = np.flatnonzero(listed)[::-1]  # backwards: the first of several in a slot is written last, and stays
        group = waiting // n
        place, keys = waiting - group * n + 1, listed.reshape(-1)[waiting]
        while len(waiting):
            slot = self._slot(keys, group, self._probes)
            free = slice(None) if not self._probes else np.flatnonzero(self._table[slot] == 0)
            self._table[slot[free]] = place[free]
            holder = self._table[slot].astype(np.int64)
            there = self._listed[group * self._width + holder] == keys
            places[waiting] = holder * there
            self._probes += 1
            if there.all():
                break
            left = np.flatnonzero(~there)
            waiting, group, place, keys = waiting[left], group[left], place[left], keys[left]
        self.own = places.reshape(groups, n)

    def find(self, asked: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the first place of each key in its list, from 1; 0 for a key that is not there: [G, T] to [G, T]."""
        group = np.arange(len(asked))[:, None]
        slot = self._slot(asked, group, 0)
        holder = self._table.take(slot)
        other = holder * (self._listed.take(np.add(holder, group * self._width, out=slot)) != asked)
        places: NDArray[np.int64] = (holder - other).astype(np.int64)
        if self._probes > 1:
            self._find_further(asked, places, np.flatnonzero(other != 0))
        return places

    def _find_further(self, asked: NDArray[np.uint64], places: NDArray[np.int64], waiting: NDArray[np.int64]) -> None:
        """Look in the next slots for the few keys whose first slot is another's."""
        for probe in range(1, self._probes):
            if not len(waiting):
                break
            group, keys = waiting // asked.shape[1], asked.reshape(-1)[waiting]
            holder = self._table[self._slot(keys, group, probe)].astype(np.int64)
            there = self._listed[group * self._width + holder] == keys
            places.reshape(-1)[waiting[there]] = holder[there]
            waiting = waiting[(holder > 0) & ~there]

    def _slot(self, keys: NDArray[np.uint64], group: NDArray[np.int64], probe: int) -> NDArray[np.int64]:
        """Return where a key is looked for the first, second, … time."""
        hashed = keys * _SPREAD
        hashed >>= self._shift
        if probe:
            hashed += np.uint64(probe)
            hashed &= np.uint64(self._slots - 1)
        slot = hashed.view(np.int64)
        slot += group * self._slots
        return slot
