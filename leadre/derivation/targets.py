"""Target ads in arrays, and the keys by which two ads are told to share something. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

AD, PREFIX, FIRST, BOTH, ADVERTISER, KEYS = 0, 1, 5, 6, 7, 8
"""Rows of `ad_keys`: the ad, prefixes of 1 to 4 codes, first category, both categories, advertiser; how many."""
PACKED = 4
"""Leading codes that a key holds, 16 bits each."""
MOST_CODE = 2**16 - 2
"""The greatest code that a key holds."""

_SHIFTS = np.arange(48, -1, -16, dtype=np.uint64)


class Shape(NamedTuple):
    """What one index version gives all its ads: S-IDs of so many codes, embeddings of so many numbers."""

    index_version: str
    levels: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """T ads that rows may have for their target, as an index has them.

    Args:
        shapes: of the indexes.
        shape_of_ad: [T], the index of each ad, a position in `shapes`; all of the first unless given.
        keys: uint64[T, 8], `ad_keys` of each with the numbers of `category_numbers`.
        category_numbers: the number of each category name.
        codes: integers[T, L], S-IDs; any value beyond an ad's levels.
        directions: int8[T, width] (`user_side.directions`); zero beyond an ad's width.
        squares: int32[T], the square of each direction's length; computed.
    """

    shapes: tuple[Shape, ...]
    shape_of_ad: NDArray[np.integer[Any]] | None = None
    keys: NDArray[np.uint64]
    category_numbers: Mapping[str, int]
    codes: NDArray[np.integer[Any]]
    directions: NDArray[np.int8]
    squares: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        wide = self.directions.astype(np.int32)
        object.__setattr__(self, "squares", np.einsum("tw,tw->t", wide, wide))


def ad_keys(
    codes: NDArray[np.integer[Any]],
    *,
    levels: ArrayLike,
    first_categories: NDArray[np.integer[Any]],
    second_categories: NDArray[np.integer[Any]],
    advertiser_ids: NDArray[np.integer[Any]],
) -> NDArray[np.uint64]:
    """Return what N ads may share with others, as keys that are equal where they share it: uint64[8, N]; 0 is none.

    A place for the ad's own key, then the leading 1, 2, 3 and 4 codes, the first category, both, the advertiser.

    Args:
        codes: [N, L], 0 to 65,534.
        levels: codes of each S-ID, [N] or one for all; the last is the disambiguation code, which counts for nothing.
        first_categories: [N] numbers of names; -1 is no category.
        second_categories: [N], likewise.
        advertiser_ids: [N]; 0 is unknown.
    """
    keys = np.zeros((KEYS, len(codes)), dtype=np.uint64)
    depths = max(min(PACKED, codes.shape[1] - 1), 0)
    prefixes = (codes[:, :depths].astype(np.uint64) + np.uint64(1)) << _SHIFTS[:depths]
    np.bitwise_or.accumulate(prefixes, axis=1, out=prefixes)
    keys[PREFIX : PREFIX + depths] = prefixes.T
    keys[PREFIX : PREFIX + depths] *= np.asarray(levels) - 1 > np.arange(depths)[:, None]
    keys[FIRST] = first_categories.astype(np.int64) + 1
    keys[BOTH] = second_categories.astype(np.int64) + 1
    keys[BOTH] = (keys[FIRST] << np.uint64(32) | keys[BOTH]) * ((keys[FIRST] > 0) & (keys[BOTH] > 0))
    keys[ADVERTISER] = advertiser_ids
    return keys


NOBODY = Targets(
    shapes=(Shape("", 0, 0),),
    keys=np.zeros((1, KEYS), np.uint64),
    category_numbers={},
    codes=np.zeros((1, 0), np.int32),
    directions=np.zeros((1, 0), np.int8),
)
"""An ad that shares nothing with any."""
