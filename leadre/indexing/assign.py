"""Disambiguation codes: what makes the S-IDs of ads with the same M codes different.

LEADRE §3.2, the additional code c^(M+1). A code once given stays: no ad is renumbered when another one leaves or comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.domain.semantic_id import SemanticId
from leadre.errors import NoFreeCode
from leadre.indexing.trie import Trie
from leadre.indexing.trie.keys import keys_of

MAX_SLOTS = 65_535
"""Ads that may share their M codes."""


def disambiguate(
    codes: NDArray[np.int32],
    ad_ids: NDArray[np.int64],
    *,
    following: NDArray[np.int64] | None = None,
    slots: int = MAX_SLOTS,
) -> NDArray[np.int32]:
    """Return whole S-IDs of new ads, int32[N, M + 1].

    Among ads with the same M codes, the new ones follow the existing ones in the order of their ids. Deterministic, and
    independent of the order of the rows.

    Args:
        codes: int32[N, M], the new ads' codes.
        ad_ids: int64[N], unique.
        following: int64[N], the first free disambiguation code after those of existing ads with the same M codes (see
            `first_free`); 0 where it is not given.
        slots: how many disambiguation codes there are.

    Raises:
        NoFreeCode: more ads share their codes than there are slots.
    """
    keys = keys_of(codes, int(codes.max(initial=0)) + 1)
    order = np.argsort(keys)
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    first = np.flatnonzero(np.append(np.ones(min(1, len(codes)), np.bool_), ~same))
    group = np.repeat(np.arange(len(first)), np.diff(first, append=len(codes)))
    tied = np.flatnonzero(np.append(same, np.zeros(min(1, len(codes)), np.bool_)))
    tied = np.union1d(tied, tied + 1)
    order[tied] = order[tied][np.lexsort((ad_ids[order[tied]], group[tied]))]
    last_code = np.empty(len(codes), np.int64)
    last_code[order] = np.arange(len(codes)) - first[group]
    if following is not None:
        last_code += following
    if len(codes) and last_code.max() >= slots:
        row, over = int(last_code.argmax()), ad_ids[last_code >= slots]
        raise NoFreeCode(
            f"{int(last_code[row]) + 1} ads share the codes {SemanticId(tuple(codes[row].tolist()))} and there are "
            f"{slots} disambiguation codes (the last ad is {ad_ids[row]}); look for repeated ads, or build a new index "
            "with more levels or codes"
        ).about(ads=over.tolist())
    return np.concatenate([codes, last_code[:, None].astype(np.int32)], axis=1)


def first_free(trie: Trie, codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the first disambiguation code above all that a trie has below each prefix of M codes; int64[N].

    Args:
        trie: of whole S-IDs, those of ads that have left included.
        codes: int32[N, M].
    """
    free = np.zeros(len(codes), np.int64)
    nodes = trie.find(codes)
    known = np.flatnonzero(nodes >= 0)
    _, high = trie.leaf_range(codes.shape[1], nodes[known])
    free[known] = trie.codes_of(high - 1)[:, -1] + 1  # codes ascend: the last leaf has the highest
    return free


def reserved_slots(sids: NDArray[np.int32]) -> int:
    """Return how many disambiguation codes an index reserves for its lifetime: twice what it uses now, at least 8.

    The model's vocabulary has one token for each, so the number cannot grow without a new model.
    """
    used = int(sids[:, -1].max(initial=0)) + 1
    return min(max(8, 2 * used), MAX_SLOTS)
