"""Disambiguation codes: what makes the S-IDs of ads with the same M codes different.

LEADRE §3.2, the additional code c^(M+1). A code once given stays: no ad is renumbered when another one leaves or comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput

MAX_SLOTS = 65_535
"""Ads that may share their M codes."""


def disambiguate(
    codes: NDArray[np.int32],
    ad_ids: NDArray[np.int64],
    *,
    taken: NDArray[np.int32] | None = None,
    slots: int = MAX_SLOTS,
) -> NDArray[np.int32]:
    """Return whole S-IDs of new ads, int32[N, M + 1].

    Among ads with the same M codes, the new ones follow the existing ones in the order of their ids. Deterministic, and
    independent of the order of the rows.

    Args:
        codes: int32[N, M], the new ads' codes.
        ad_ids: int64[N], unique.
        taken: int32[E, M + 1], the S-IDs given before, those of ads that have left included.
        slots: how many disambiguation codes there are.

    Raises:
        InvalidInput: more ads share their codes than there are slots.
    """
    levels = codes.shape[1]
    given = np.empty((0, levels + 1), np.int32) if taken is None else taken
    _, group = np.unique(np.concatenate([given[:, :levels], codes]), axis=0, return_inverse=True)
    group = group.reshape(-1)
    old, new = group[: len(given)], group[len(given) :]
    following = np.zeros(len(group), np.int64)  # by group: the first free code
    np.maximum.at(following, old, given[:, levels].astype(np.int64) + 1)
    order = np.lexsort((ad_ids, new))
    sorted_groups = new[order]
    first = np.searchsorted(sorted_groups, sorted_groups)
    last_code = np.empty(len(codes), np.int64)
    last_code[order] = following[sorted_groups] + np.arange(len(codes)) - first
    if len(codes) and last_code.max() >= slots:
        row = int(last_code.argmax())
        raise InvalidInput(
            f"{int(last_code[row]) + 1} ads share the codes {SemanticId(tuple(codes[row].tolist()))} and there are "
            f"{slots} disambiguation codes (the last ad is {ad_ids[row]}); look for repeated ads, or build a new index "
            "with more levels or codes"
        )
    return np.concatenate([codes, last_code[:, None].astype(np.int32)], axis=1)


def reserved_slots(sids: NDArray[np.int32]) -> int:
    """Return how many disambiguation codes an index reserves for its lifetime: twice what it uses now, at least 8.

    The model's vocabulary has one token for each, so the number cannot grow without a new model.
    """
    used = int(sids[:, -1].max(initial=0)) + 1
    return min(max(8, 2 * used), MAX_SLOTS)
