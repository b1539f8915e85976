"""Where what is in a list record: docs/features.md byte by byte, as NumPy types. LEADRE §4.4.1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FORMAT = 1
"""The first byte of a record."""
MOST_ADS = 2**15 - 1
"""Ads that a record holds at most: two categories each are numbered in 16 bits."""

WHOLE = 0x2144DF1C
"""CRC-32 of any bytes that end with their own CRC-32."""
HEADER = Struct("<BBHHHHHI")
"""Format; levels, width, ads, names; bytes of release, index version and all names."""
FEW_NAMES = 2**8
"""So many are numbered in one byte."""
Shape: TypeAlias = tuple[int, int, int, bool]
"""Levels, width, ads, whether there are more than `FEW_NAMES` names."""


PER_AD = (
    ("ad_ids", "<i8"),
    ("advertiser_ids", "<i8"),
    ("shares", "<u4"),
    ("log_probabilities", "<f4"),
    ("codes", "<u2"),
    ("first_categories", ""),
    ("second_categories", ""),
    ("directions", "i1"),
)
PER_LIST = ("generated_at_s", "behavior_at_s", "entropy", "expected_ecpm")
TYPES = {
    **{name: np.dtype(kind or np.int32) for name, kind in PER_AD},
    **dict.fromkeys(PER_LIST, np.dtype(np.float64)),
    "codes": np.dtype((np.uint16, 0)),
    "directions": np.dtype((np.int8, 0)),
    "mean_embedding": np.dtype((np.float32, 0)),
}
"""What each column of `Lists` that a record holds is in memory; of several numbers an ad, where the width is given."""


@lru_cache(maxsize=1024)
def layout_of(levels: int, width: int, count: int, many_names: bool) -> np.dtype[np.void]:  # noqa: FBT001
    """Return the part of a record that lists of one shape share; names follow it, and the checksum."""
    shapes = {"codes": (count, levels), "directions": (count, width)}
    number = "<u2" if many_names else "u1"
    return np.dtype(
        [
            *(("format", "u1"), ("levels", "u1"), ("width", "<u2"), ("count", "<u2"), ("names", "<u2")),
            *(("release_bytes", "<u2"), ("version_bytes", "<u2"), ("name_bytes", "<u4")),
            *((name, "<f8") for name in PER_LIST),
            ("mean_embedding", "<f4", (width,)),
            *((name, kind or number, shapes.get(name, (count,))) for name, kind in PER_AD),
        ]
    )


def by_shape(shapes: Iterable[Shape | None]) -> Iterator[tuple[Shape, NDArray[np.int64]]]:
    """Group lists of one shape, whose records have every part in one place; those of None are left out."""
    groups: dict[Shape, list[int]] = {}
    for u, shape in enumerate(shapes):
        if shape is not None:
            groups.setdefault(shape, []).append(u)
    for shape, members in groups.items():
        yield shape, np.array(members)


def ads_of(offsets: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> NDArray[np.int64] | slice:
    """Return where the ads of lists of one length are, one list after the other."""
    if len(chosen) * count == offsets[-1]:  # all there are
        return slice(None)
    return (offsets[chosen, None] + np.arange(count)).reshape(-1)
