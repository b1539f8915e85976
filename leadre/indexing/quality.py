"""How good the S-IDs of an index are, before any model is trained on them.

LEADRE §5.2.5, Table 5, which names three figures without defining them. Here, over the M codes before disambiguation:

- collision rate: share of ads that share their codes with another ad. Beside it `duplicate_rate`, the other reading:
  1 - distinct code tuples / ads (it counts one ad of each group as free of collision, so it is the smaller one);
- max collision number: ads in the largest group that shares its codes;
- average usage rate: share of a codebook's codes that some ad has, averaged over the codebooks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def index_quality(codes: NDArray[np.int32], *, size: int, categories: NDArray[np.int32]) -> dict[str, Any]:
    """Return Table 5's figures and per-level ones, as JSON values.

    Args:
        codes: int32[N, M], without the disambiguation code; N >= 1.
        size: K.
        categories: int32[N], the ads' categories.

    Returns:
        `ads`, `collision_rate`, `duplicate_rate`, `max_collision`, `average_usage`; and lists of one number a level:
        `usage`, `entropy_bits` (of the level's codes; at most log2 K), and `category_purity` (share of ads whose
        category is the commonest one among the ads with the same codes up to this level).
    """
    ads, levels = codes.shape
    _, sizes = np.unique(codes, axis=0, return_counts=True)
    usage, entropy, purity = [], [], []
    for level in range(levels):
        counts = np.bincount(codes[:, level], minlength=size)
        shares = counts[counts > 0] / ads
        usage.append(float((counts > 0).mean()))
        entropy.append(float(max(0.0, -(shares * np.log2(shares)).sum())))
        purity.append(_purity(codes[:, : level + 1], categories))
    return {
        "ads": ads,
        "collision_rate": float(sizes[sizes > 1].sum() / ads),
        "duplicate_rate": float(1 - len(sizes) / ads),
        "max_collision": int(sizes.max()),
        "average_usage": float(np.mean(usage)),
        "usage": usage,
        "entropy_bits": entropy,
        "category_purity": purity,
    }


def _purity(prefixes: NDArray[np.int32], categories: NDArray[np.int32]) -> float:
    _, group = np.unique(prefixes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    pairs, counts = np.unique(np.stack([group, categories]), axis=1, return_counts=True)
    commonest = np.zeros(int(group.max()) + 1, np.int64)
    np.maximum.at(commonest, pairs[0], counts)
    return float(commonest.sum() / len(categories))
