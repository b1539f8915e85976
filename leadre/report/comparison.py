"""A release beside the one that was live before it: figures, S-IDs that moved, lists that changed.

LEADRE §4.4.1: index and LLM are updated daily. The measures are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.indexing.ad_index import AdIndex

COMPARED_USERS = 2_000
"""Lists of the later release that are looked at (ours)."""
CUTOFFS = (1, 8)
"""Of the overlap of lists: the first ad, and the eight that the paper's lists are judged by (§5.2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDrift:
    """How two index versions differ.

    Args:
        same: whether they are one version.
        common, added, removed: ads of both, of the later, of the earlier alone.
        kept: share of the common ads whose S-ID is the same.
        neighbours: a level each, how alike the groups are that share codes up to it: the mean over the common ads of
            |both groups| / |either group|, 1 when the groups are the same, whatever the codes are called.
    """

    same: bool
    common: int
    added: int
    removed: int
    kept: float
    neighbours: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A release beside the one before.

    Args:
        against: the one before, and when it was promoted.
        promoted_at: when `against` was.
        evaluation: of `against`, in plain form; empty where there was none.
        drift: of the index; None where the earlier index is gone.
        users: who have a list of both releases, of those looked at.
        overlap: cutoff to the mean share of ads that both lists have; empty when there are no such users.
    """

    against: str
    promoted_at: datetime | None
    evaluation: Mapping[str, Any]
    drift: IndexDrift | None
    users: int
    overlap: Mapping[int, float]


def index_drift(index: AdIndex, before: AdIndex) -> IndexDrift:
    """Return how an index differs from an earlier one."""
    common, here, there = np.intersect1d(index.ad_ids, before.ad_ids, assume_unique=True, return_indices=True)
    ours, theirs = np.asarray(index.codes)[here], np.asarray(before.codes)[there]
    depth = min(ours.shape[1], theirs.shape[1])
    same_length = ours.shape[1] == theirs.shape[1]
    return IndexDrift(
        same=index.version == before.version,
        common=len(common),
        added=len(index) - len(common),
        removed=len(before) - len(common),
        kept=float((ours == theirs).all(axis=1).mean()) if same_length and len(common) else 0.0,
        neighbours=tuple(
            _alike(_groups(ours[:, :level]), _groups(theirs[:, :level])) for level in range(1, depth) if len(common)
        ),
    )


def overlap(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[int, float]:
    """Return, for each cutoff, the mean over pairs of lists of the share of ads among the first K that both have.

    A list that is shorter than K counts with its length; the share is of the longer one.
    """
    if not pairs:
        return {}
    return {
        cutoff: float(
            np.mean(
                [
                    len({*ours[:cutoff]} & {*theirs[:cutoff]}) / max(len(ours[:cutoff]), len(theirs[:cutoff]), 1)
                    for ours, theirs in pairs
                ]
            )
        )
        for cutoff in CUTOFFS
    }


def _groups(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of each row's group of equal rows, int64[n]."""
    found: NDArray[np.int64] = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    return found


def _alike(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    """Return the mean Jaccard index of each element's two groups, exactly, without looking at pairs."""
    cells, of, both = np.unique(ours * (int(theirs.max()) + 1) + theirs, return_inverse=True, return_counts=True)
    del cells
    inside = both[of.reshape(-1)]
    either = np.bincount(ours)[ours] + np.bincount(theirs)[theirs] - inside
    return float((inside / either).mean())
