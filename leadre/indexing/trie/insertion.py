"""New rows into sorted ones: where each goes, worked out once, then one pass a column.

Ours; LEADRE §3.2 asks that new ads join the index, and an index keeps its ads in the order of their S-IDs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_BLOCK = 1 << 15  # rows moved at a time: their row numbers stay in the core's cache


class Insertion:
    """New rows among `rows` old ones; both keep their order.

    Args:
        places: int64[n], ascending: the old row before which each new one goes, `rows` for the end.
        rows: old rows.
    """

    __slots__ = ("added", "rows")

    def __init__(self, places: Ints, *, rows: int) -> None:
        self.rows = rows
        self.added: Ints = places + np.arange(len(places))
        """Where the new rows stand in the end, int64[n]."""

    def merge(self, old: NDArray[Any], new: Any) -> NDArray[Any]:
        """Return a column with the new rows in it, in the old one's type. It is a copy: the old one may be mapped."""
        total = self.rows + len(self.added)
        merged = np.empty((total, *old.shape[1:]), old.dtype)
        if self.rows:
            starts = range(0, total, _BLOCK)
            before = np.searchsorted(self.added, [*starts, total])  # new rows before each block
            for block, start in enumerate(starts):
                stop = min(start + _BLOCK, total)
                source = np.ones(stop - start, np.int64)
                source[self.added[before[block] : before[block + 1]] - start] = 0
                np.cumsum(source, out=source)
                source += start - 1 - before[block]  # a new row copies its predecessor, and is written over below
                old.take(source, axis=0, mode="clip", out=merged[start:stop])
        merged[self.added] = new
        return merged

    def moved(self, rows: Ints) -> Ints:
        """Return where old rows stand in the end, int64[n]."""
        stays = np.ones(self.rows + len(self.added), np.bool_)
        stays[self.added] = False
        return np.flatnonzero(stays).take(rows)
