"""Many ranges of positions at once, in arrays: spread out, chained, searched.

Ours; the trie's nodes (LEADRE §3.3) are such ranges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def following(values: NDArray[Any], final: Ints, ends: NDArray[Any]) -> NDArray[Any]:
    """Return the value after each one; after the final one of each group, the group's end."""
    after = np.empty_like(values)
    after[:-1] = values[1:]
    after[final] = ends
    return after


def spread(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Return every position of every range [low, high), and which range it is from."""
    sizes = high - low
    parent = np.repeat(np.arange(len(low)), sizes)
    position = np.arange(len(parent))
    position += (low - (np.cumsum(sizes) - sizes)).take(parent)
    return parent, position


def bisect(value_at: Callable[[Ints], Ints], low: Ints, high: Ints, wanted: Ints) -> Ints:
    """Return in each ascending range [low, high) the first position whose value is not below the wanted one."""
    low, high = low.copy(), high.copy()
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) >> 1
        right = value_at(middle) < wanted[open_]
        low[open_] = np.where(right, middle + 1, low[open_])
        high[open_] = np.where(right, high[open_], middle)
    return low
