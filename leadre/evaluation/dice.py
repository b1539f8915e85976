"""How alike two retrieved lists are, for many users at once.

LEADRE §5.2.6, Eq. 7. `leadre.evaluation.diversity.dice` is the formula as printed, for one pair.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT


def dice_by_user(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Eq. 7, 2|A ∩ B| / (|A| + |B|), of each pair of lists, float64[n]; 1 for two empty ones.

    Args:
        first: int64[n, K], ad ids without repetition, padded with `ABSENT`.
        second: int64[n, L], likewise.

    Raises:
        InvalidInput: another number of lists.
    """
    if len(first) != len(second):
        raise InvalidInput(f"{len(first)} lists to compare with {len(second)}; one a user is needed on both sides")
    there, other = first != ABSENT, second != ABSENT
    common = ((first[:, :, None] == second[:, None, :]) & there[:, :, None]).sum(axis=(1, 2))
    together = there.sum(axis=1) + other.sum(axis=1)
    return np.where(together > 0, 2 * common / np.maximum(together, 1), 1.0)
