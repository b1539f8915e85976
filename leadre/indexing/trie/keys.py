"""Code tuples as one integer each, so that sorting and grouping tens of millions of ads takes no comparison of rows.

Ours; LEADRE §3.2 has the tuples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = 1 << 63  # a key is a non-negative int64


def keys_of(codes: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Return int64[N]: equal for equal rows, and in the rows' lexicographic order.

    Where `size` to the power of M exceeds 63 bits the keys are ranks among these rows, otherwise the same row gives the
    same key in every call.

    Args:
        codes: int32[N, M], each in [0, size).
        size: K.
    """
    keys, bound = np.zeros(len(codes), np.int64), 1
    for level in range(codes.shape[1]):
        if bound * size > _LARGEST:
            distinct, keys = np.unique(keys, return_inverse=True)
            bound = len(distinct)
        keys *= size
        keys += codes[:, level]
        bound *= size
    return keys
