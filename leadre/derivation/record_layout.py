"""Where what is in a list record: docs/features.md byte by byte, as NumPy types. LEADRE §4.4.1.

Format 2 is written; format 1, which logs of before hold, is read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadre.domain.retrieval import Source

FORMAT = 2
"""The first byte of a record as it is written."""
FIRST_FORMAT = 1
"""That of records from before there were fences. Ids have 8 bytes, codes 2."""
MOST_ADS = 2**15 - 1
"""Ads that a record holds at most: two categories each are numbered in 16 bits."""
MOST_COUNTED = 2**32 - 1
"""The greatest release epoch and behavior sequence that a record holds."""
SOURCES: tuple[Source, ...] = ("llm", "covisitation", "popular")
"""What retrieved a list; a record has the position."""

WHOLE = 0x2144DF1C
"""CRC-32 of any bytes that end with their own CRC-32."""
FENCE = slice(2, 10)
"""Release epoch and behavior sequence in a record, the most significant byte first: bytes compare like the numbers."""
FENCE_CHECK = slice(10, 12)
"""A sum over the fence (`fence_checks`): Redis's scripts compute no CRC-32, and trust no fence that was altered."""
_HEADER, _TEXTS = Struct("<BBHHHHBB"), Struct("<HH")
"""Behind the fence: levels, wide codes, width, ads, names, advertisers; bytes of an id of an ad and of an advertiser.
Behind that: bytes of the names of release and index version."""
_FIRST_HEADER = Struct("<BHHHHHI")
"""Behind the format: levels, width, ads, names; bytes of release, index version and all names."""
_SHAPED = slice(FENCE_CHECK.stop, FENCE_CHECK.stop + _HEADER.size + _TEXTS.size)
SHORTEST = 52
"""Bytes of an empty record of the first format, the shorter one."""
_LEAST, _CHECK = 64, 0x4C45
"""Bytes of an empty record of the second, and what its check begins with."""
FEW = 2**8
"""So many names or advertisers are numbered in one byte."""
ID_TYPES = (np.dtype("u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))
"""What ids of a record are written in: the first that holds them all."""


class Shape(NamedTuple):
    """What records whose parts are in the same places share.

    `wide` leading codes of an S-ID have two bytes each, the others one. Names and advertisers are `many` above `FEW`.
    """

    format: int
    levels: int
    wide: int
    width: int
    ads: int
    id_bytes: int
    advertiser_bytes: int
    many_names: bool
    many_advertisers: bool


PER_AD: dict[str, Any] = {
    "ad_ids": np.int64,
    "advertiser_ids": np.int64,
    "shares": np.uint32,
    "log_probabilities": np.float32,
    "codes": (np.uint16, 0),
    "first_categories": np.int32,
    "second_categories": np.int32,
    "directions": (np.int8, 0),
}
PER_LIST = ("generated_at_s", "behavior_at_s", "entropy", "expected_ecpm")
TYPES = {
    **{name: np.dtype(kind) for name, kind in PER_AD.items()},
    **dict.fromkeys(PER_LIST, np.dtype(np.float64)),
    **dict.fromkeys(("release_epochs", "behavior_sequences"), np.dtype(np.int64)),
    "mean_embedding": np.dtype((np.float32, 0)),
}
"""What each column of `Lists` that a record holds is in memory; of several numbers an ad, where the width is given."""


@lru_cache(maxsize=1024)
def layout_of(shape: Shape) -> np.dtype[np.void]:
    """Return the part of a record that lists of one shape share; what differs in length follows, and the checksum."""
    count, first = shape.ads, shape.format == FIRST_FORMAT
    header: list[tuple[Any, ...]] = [("format", "u1"), ("levels", "u1")]
    header += [(name, "<u2") for name in ("width", "count", "names", "release_bytes", "version_bytes")]
    header += [("name_bytes", "<u4")]
    advertisers: tuple[str, Any] = ("advertiser_ids", "<u8")
    if not first:
        header = [("format", "u1"), ("source", "u1"), ("release_epochs", ">u4"), ("behavior_sequences", ">u4")]
        header += [("fence_check", "<u2"), ("levels", "u1"), ("wide", "u1")]
        header += [(name, "<u2") for name in ("width", "count", "names", "advertisers")]
        header += [("id_bytes", "u1"), ("advertiser_bytes", "u1"), ("release_bytes", "<u2"), ("version_bytes", "<u2")]
        advertisers = ("advertiser_numbers", "<u2" if shape.many_advertisers else "u1")
    number = "<u2" if shape.many_names else "u1"
    return np.dtype(
        [
            *header,
            *((name, "<f8") for name in PER_LIST),
            ("mean_embedding", "<f4", (shape.width,)),
            ("ad_ids", f"<u{shape.id_bytes}", (count,)),
            (*advertisers, (count,)),
            ("shares", "<u4", (count,)),
            ("log_probabilities", "<f4", (count,)),
            ("wide_codes", "<u2", (count, shape.wide)),
            ("narrow_codes", "u1", (count, shape.levels - shape.wide)),
            ("first_categories", number, (count,)),
            ("second_categories", number, (count,)),
            ("directions", "i1", (count, shape.width)),
        ]
    )


def fence_checks(epochs: NDArray[np.int64], sequences: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the check of each fence: its eight bytes, each times its place from 1, added up; and a constant."""
    both = np.stack((epochs, sequences), axis=1).astype(">u4").view(np.uint8).reshape(-1, 8)
    return (both @ np.arange(1, 9, dtype=np.uint16) + np.uint16(_CHECK)).astype(np.uint16)


def fence_of(record: bytes | None) -> tuple[int, int]:
    """Return the release epoch and the behavior sequence of a record, as scripts see them that look at nothing else.

    A record of the first format has none, (0, 0); what is none, or whose fence was altered, is before any: (-1, -1).
    """
    form, size = (record[0], len(record)) if record else (0, 0)
    if record is None or form not in (FIRST_FORMAT, FORMAT) or size < (SHORTEST if form == FIRST_FORMAT else _LEAST):
        return -1, -1
    if form == FIRST_FORMAT:
        return 0, 0
    check = _CHECK + sum(place * byte for place, byte in enumerate(record[FENCE], 1))
    if check != int.from_bytes(record[FENCE_CHECK], "little"):
        return -1, -1
    return int.from_bytes(record[2:6], "big"), int.from_bytes(record[6:10], "big")


class Places(NamedTuple):
    """Where what differs in length is in a record.

    `advertisers` and `names` are where their tables begin, the latter of `lengths`; `texts` how long the names of
    release and index version are.
    """

    shape: Shape
    advertisers: int
    names: int
    lengths: str
    texts: tuple[int, int]


def places_of(record: bytes) -> Places | None:
    """Return where things are in a record that is whole, by its header; None when that is not one of ours."""
    return _places(record[:1] + record[_SHAPED] if record[0] == FORMAT else record[:16])


@lru_cache(maxsize=4096)
def _places(header: bytes) -> Places | None:
    if header[0] == FIRST_FORMAT:
        levels, width, count, names, release_bytes, version_bytes, _ = _FIRST_HEADER.unpack_from(header, 1)
        shape = Shape(FIRST_FORMAT, levels, levels, width, count, 8, 8, names > FEW, False)  # noqa: FBT003
        advertisers = 0
    else:
        levels, wide, width, count, names, advertisers, id_bytes, others = _HEADER.unpack_from(header, 1)
        if wide > levels or not {id_bytes, others} <= {1, 2, 4, 8}:
            return None
        release_bytes, version_bytes = _TEXTS.unpack_from(header, 1 + _HEADER.size)
        shape = Shape(FORMAT, levels, wide, width, count, id_bytes, others, names > FEW, advertisers > FEW)
    at = layout_of(shape).itemsize
    table = at + advertisers * shape.advertiser_bytes
    return Places(shape, at, table, f"<{names}H", (release_bytes, version_bytes))


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
