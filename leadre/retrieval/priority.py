"""ARPU groups: who is refreshed first when there is not enough capacity for all.

LEADRE §4.4.1, Adaptive Resource Distribution: users in 25 groups by average revenue per user. This is what
`leadre.store.records.distribution.arpu` does in SQL, printed in arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

GROUPS = 25
"""The paper's number of groups; 0 is the lowest ARPU, 24 the highest."""


def arpu_groups(
    arpu: NDArray[np.floating], *, before: NDArray[np.integer] | None = None, margin: float = 0.0
) -> NDArray[np.int16]:
    """Return each user's ARPU group by quantile: the groups are equally large but for ties, which stay together.

    A user's place is 25 * share of users with a lower ARPU, its group the whole part of that, so equal ARPU means equal
    place, and the many users without any revenue share group 0. A user who had a group leaves it only when its place
    lies more than `margin` beyond it: a group's name then does not change with every coin a user spends.

    Args:
        arpu: [n] currency units, finite.
        before: [n] the groups so far; None at first.
        margin: in widths of a group, at least 0.

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
    place = np.searchsorted(np.sort(arpu), arpu, side="left") * GROUPS / max(arpu.size, 1)
    groups = place.astype(np.int16)
    if before is not None:
        stays = (place >= before - margin) & (place < before + 1 + margin)
        groups = np.where(stays, before, groups).astype(np.int16)
    return groups
