"""ARPU groups: who is refreshed first when there is not enough capacity for all.

LEADRE §4.4.1, Adaptive Resource Distribution: users in 25 groups by average revenue per user.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

GROUPS = 25
"""The paper's number of groups; 0 is the lowest ARPU, 24 the highest."""


def arpu_groups(arpu: NDArray[np.floating]) -> NDArray[np.int16]:
    """Return each user's ARPU group by quantile: the groups are equally large but for ties, which stay together.

    A user's group is floor(25 * share of users with a lower ARPU), so equal ARPU always means equal group, and the
    many users without any revenue share group 0.

    Args:
        arpu: [n] currency units, finite.

    Returns:
        [n] groups, 0 to 24.

    Raises:
        InvalidInput: not one-dimensional, or a value that is not finite.
    """
    if arpu.ndim != 1:
        raise InvalidInput(f"one ARPU a user is wanted, the array has shape {arpu.shape}", column="arpu")
    wrong = np.flatnonzero(~np.isfinite(arpu))
    if wrong.size:
        raise InvalidInput("the ARPU is not a finite number", row=int(wrong[0]) + 1, column="arpu")
    lower = np.searchsorted(np.sort(arpu), arpu, side="left")
    return (lower * GROUPS // max(arpu.size, 1)).astype(np.int16)
