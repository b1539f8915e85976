"""Which categories tell ads apart: the level at which the variety of lists is counted and steered.

LEADRE §5.2.3 counts "categories" and does not say of which level. Ours: the shallowest level at which an inventory is
varied. Where all ads share a first category every list is as concentrated as can be, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.quality import counts_of, entropy_bits

CategoryLevel = Literal["first", "second", "code"]
"""First- or second-level categories, or the first codes of S-IDs in their stead."""
LEAST_BITS = 1.0
"""Entropy from which on a level counts as varied: that of two equally frequent categories (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TellingCategories:
    """The categories of an index's ads at the level that tells them apart.

    Args:
        level: which.
        of_rows: int64[N], a number for each row's category; equal numbers, equal categories.
    """

    level: CategoryLevel
    of_rows: NDArray[np.int64]


def telling_categories(index: AdIndex) -> TellingCategories:
    """Return the categories of the shallowest level whose entropy over the ads is at least `LEAST_BITS`.

    The levels are the first categories, the pairs of first and second, and the S-IDs' first codes; where none is
    varied enough, the one with the highest entropy.
    """
    reached: dict[CategoryLevel, float] = {}
    if not len(index):
        return TellingCategories(level="first", of_rows=np.empty(0, np.int64))
    for level, categories in _levels(index):
        reached[level] = entropy_bits(counts_of(categories, int(categories.max()) + 1))
        if reached[level] >= LEAST_BITS:
            return TellingCategories(level=level, of_rows=categories)
    most = max(reached, key=reached.__getitem__)
    return TellingCategories(level=most, of_rows=dict(_levels(index))[most])


def _levels(index: AdIndex) -> Iterator[tuple[CategoryLevel, NDArray[np.int64]]]:
    first = index.first_categories.astype(np.int64)
    yield "first", first
    yield "second", first * len(index.category_names) + index.second_categories
    yield "code", index.codes[:, 0].astype(np.int64)
