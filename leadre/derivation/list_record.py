"""The list record: one retrieval list as bytes, written once and read everywhere.

LEADRE §4.4.1. The one feature that the online store and the retrieval log hold of a list; docs/features.md has it byte
by byte. Little-endian. A record that is missing, cut, altered or of another format is an absent list, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from struct import Struct, unpack_from
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.lists import Lists
from leadre.errors import InvalidInput

FORMAT = 1
"""The first byte of a record."""
MOST_ADS = 2**15 - 1
"""Ads that a record holds at most: two categories each are numbered in 16 bits."""

_WHOLE = 0x2144DF1C  # CRC-32 of any bytes that end with their own CRC-32
_HEADER = Struct("<BBHHHHHI")
_FEW_NAMES = 2**8  # so many are numbered in one byte
_MOST_TEXT = 2**16 - 1
_Shape: TypeAlias = tuple[int, int, int, bool]  # levels, width, count, more than _FEW_NAMES names


_PER_AD = (
    ("ad_ids", "<i8"),
    ("advertiser_ids", "<i8"),
    ("shares", "<u4"),
    ("log_probabilities", "<f4"),
    ("codes", "<u2"),
    ("first_categories", ""),
    ("second_categories", ""),
    ("directions", "i1"),
)
_PER_LIST = ("generated_at_s", "behavior_at_s", "entropy", "expected_ecpm")
_TYPES = {
    **{name: np.dtype(kind or np.int32) for name, kind in _PER_AD},
    **dict.fromkeys(_PER_LIST, np.dtype(np.float64)),
    "codes": np.dtype((np.uint16, 0)),
    "directions": np.dtype((np.int8, 0)),
    "mean_embedding": np.dtype((np.float32, 0)),
}
"""What each column of `Lists` that a record holds is in memory; of several numbers an ad, where the width is given."""
_Part: TypeAlias = tuple[Any, NDArray[Any]]  # the rows of a column, and their values


@lru_cache(maxsize=1024)
def _layout(levels: int, width: int, count: int, many_names: bool) -> np.dtype[np.void]:  # noqa: FBT001
    """Return the part of a record that lists of one shape share; names follow it, and the checksum."""
    shapes = {"codes": (count, levels), "directions": (count, width)}
    number = "<u2" if many_names else "u1"
    return np.dtype(
        [
            *(("format", "u1"), ("levels", "u1"), ("width", "<u2"), ("count", "<u2"), ("names", "<u2")),
            *(("release_bytes", "<u2"), ("version_bytes", "<u2"), ("name_bytes", "<u4")),
            *((name, "<f8") for name in _PER_LIST),
            ("mean_embedding", "<f4", (width,)),
            *((name, kind or number, shapes.get(name, (count,))) for name, kind in _PER_AD),
        ]
    )


def pack(lists: Lists) -> list[bytes]:
    """Write each list as a record; an absent list as an empty one.

    Raises:
        InvalidInput: a list of more than `MOST_ADS` ads, or a name of more than 65,535 bytes.
    """
    counts = lists.counts
    if counts.max(initial=0) > MOST_ADS:
        raise InvalidInput(f"a list has {counts.max()} ads; a record holds {MOST_ADS}: lower the beam width")
    names, bounds, used, own_numbers = _own_names(lists)
    encoded = [_encoded(name) for name in names]
    texts = {text: _encoded(text) for text in {*lists.releases, *lists.index_versions}}
    used_bytes = np.array([len(name) for name in encoded], dtype="<u2")[used]
    name_counts = np.diff(bounds)
    total = np.concatenate(([0], np.cumsum(used_bytes, dtype=np.int64)))
    columns = {
        "names": name_counts,
        "name_bytes": total[bounds[1:]] - total[bounds[:-1]],
        "release_bytes": np.array([len(texts[text]) for text in lists.releases]),
        "version_bytes": np.array([len(texts[text]) for text in lists.index_versions]),
        **{name: getattr(lists, name) for name in _PER_LIST},
        "mean_embedding": lists.mean_embedding,
    }
    per_ad = {name: getattr(lists, name) for name, _ in _PER_AD}
    per_ad["first_categories"], per_ad["second_categories"] = own_numbers
    heads = [b""] * len(lists)
    for shape, chosen in _by_shape(lists.levels, lists.widths, counts, name_counts > _FEW_NAMES):
        levels, width, count, _ = shape
        written = np.empty(len(chosen), dtype=_layout(*shape))
        written["format"], written["levels"], written["width"], written["count"] = FORMAT, levels, width, count
        for name, values in columns.items():
            written[name] = values[chosen] if values.ndim == 1 else values[chosen, :width]
        ads = _ads_of(lists.offsets, chosen, count)
        for name, values in per_ad.items():
            part = values[ads] if values.ndim == 1 else values[ads, : written[name].shape[2]]
            written[name] = part.reshape(written[name].shape)
        size, block = written.itemsize, written.tobytes()
        for place, u in enumerate(chosen.tolist()):
            heads[u] = block[place * size : (place + 1) * size]

    edges, lengths, own_names = bounds.tolist(), used_bytes.tobytes(), [encoded[number] for number in used.tolist()]
    records = []
    for u, head in enumerate(heads):
        begin, end = edges[u], edges[u + 1]
        tail = (texts[lists.releases[u]], texts[lists.index_versions[u]], *own_names[begin:end])
        body = b"".join((head, lengths[2 * begin : 2 * end], *tail))
        records.append(body + crc32(body).to_bytes(4, "little"))
    return records


def unpack(records: Iterable[Any]) -> Lists:
    """Read U records; what is no whole record of this format (None, NaN, cut, altered) is an absent list."""
    given = [_whole(record) for record in records]
    heads = [_NO_HEAD if record is None else _read_texts(record) for record in given]
    names: dict[str, int] = {}
    numbers: list[int] = []  # in `names`, of the names of each list in turn
    first_number = [0]
    for head in heads:
        numbers += [names.setdefault(name, len(names)) for name in head.names]
        first_number.append(len(numbers))
    present = np.array([head is not _NO_HEAD for head in heads], dtype=np.bool_)
    levels, widths, counts, many = np.array([head.shape for head in heads], dtype=np.int64).reshape(-1, 4).T
    offsets = np.concatenate(([0], np.cumsum(counts)))
    number, first = np.array([*numbers, 0], dtype=np.int32), np.array(first_number)
    broken = np.zeros(len(given), dtype=np.bool_)
    parts: dict[str, list[_Part]] = {name: [] for name in _TYPES}
    for shape, chosen in _by_shape(levels, widths, counts, many, among=present):
        layout = _layout(*shape)
        read = np.frombuffer(b"".join([given[u][: layout.itemsize] for u in chosen.tolist()]), dtype=layout)
        ads = _ads_of(offsets, chosen, shape[2])
        for name in (*_PER_LIST, "mean_embedding"):
            parts[name].append((chosen, read[name]))
        for name, _ in _PER_AD:
            values = read[name]
            if name.endswith("categories"):
                position = first[chosen, None] + values
                broken[chosen] |= (position >= first[chosen + 1, None]).any(axis=1)
                values = number[np.minimum(position, len(numbers))]
            parts[name].append((ads, values.reshape(len(chosen) * shape[2], *values.shape[2:])))
        broken[chosen] |= ~np.isfinite(read["generated_at_s"])
    if broken.any():  # its checksum is right, and yet it says nothing: none of ours
        return unpack([None if bad else record for bad, record in zip(broken.tolist(), given, strict=True)])
    rows = {**dict.fromkeys(_TYPES, len(given)), **{name: int(offsets[-1]) for name, _ in _PER_AD}}
    columns = {name: _put_together(of_name, rows[name], _TYPES[name]) for name, of_name in parts.items()}
    columns["behavior_at_s"][~present] = np.nan
    return Lists(
        offsets=offsets,
        present=present,
        levels=levels.astype(np.uint8),
        widths=widths.astype(np.uint16),
        category_names=(*names,),
        releases=tuple([head.release for head in heads]),
        index_versions=tuple([head.index_version for head in heads]),
        **columns,
    )


def _put_together(parts: list[_Part], rows: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a column from parts of one width each; zero where no part has a value, or beyond its width."""
    if len(parts) == 1 and len(parts[0][1]) == rows:
        return parts[0][1].astype(dtype.base)
    width = max((values.shape[1:] for _, values in parts), default=dtype.shape)
    column = np.zeros((rows, *width), dtype=dtype.base)
    for place, values in parts:
        if width:
            column[place, : values.shape[1]] = values
        else:
            column[place] = values
    return column


class _Head(NamedTuple):
    shape: _Shape
    release: str
    index_version: str
    names: tuple[str, ...]


_NO_HEAD = _Head((0, 0, 0, False), "", "", ())


def _whole(record: Any) -> bytes | None:
    if isinstance(record, (bytearray, memoryview)):
        record = bytes(record)
    sound = isinstance(record, bytes) and len(record) >= _HEADER.size + 4 and record[0] == FORMAT
    return record if sound and crc32(record) == _WHOLE else None


def _read_texts(record: bytes) -> _Head:
    """Read the shape and the texts of a record; `_NO_HEAD` when its lengths do not add up, or it holds no text."""
    _, levels, width, count, name_count, release_bytes, version_bytes, name_bytes = _HEADER.unpack_from(record)
    shape = (levels, width, count, name_count > _FEW_NAMES)
    try:
        at = _layout(*shape).itemsize
        begin = at + 2 * name_count
        if len(record) != begin + release_bytes + version_bytes + name_bytes + 4:
            return _NO_HEAD
        lengths = unpack_from(f"<{name_count}H", record, at)
        edges = [*accumulate((release_bytes, version_bytes, *lengths), initial=begin)]
        if edges[-1] != len(record) - 4:
            return _NO_HEAD
        release, version, *names = [record[a:b].decode() for a, b in pairwise(edges)]
    except ValueError:
        return _NO_HEAD
    return _Head(shape, release, version, tuple(names))


def _by_shape(
    *shape: NDArray[Any], among: NDArray[np.bool_] | None = None
) -> Iterator[tuple[_Shape, NDArray[np.int64]]]:
    """Group lists of equal levels, width, count and kind of names: their records have every part in one place."""
    groups: dict[Any, list[int]] = {}
    for u, of_list in enumerate(zip(*(part.tolist() for part in shape), strict=True)):
        groups.setdefault(of_list, []).append(u)
    for (levels, width, count, many), members in groups.items():
        chosen = np.array(members)
        if among is not None:
            chosen = chosen[among[chosen]]
        if len(chosen):
            yield (levels, width, count, bool(many)), chosen


def _ads_of(offsets: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> NDArray[np.int64] | slice:
    """Return where the ads of lists of one length are, one list after the other."""
    if len(chosen) * count == offsets[-1]:  # all there are
        return slice(None)
    return (offsets[chosen, None] + np.arange(count)).reshape(-1)


def _own_names(lists: Lists) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Number the names of each list from 0.

    Returns:
        The names that any list has; bounds of each list's names, [U + 1]; the names they are, as positions in the
        first; and every ad's first and second category as a number of its list, [2, E].
    """
    both = np.stack((lists.first_categories, lists.second_categories))
    known = np.zeros(len(lists.category_names), dtype=np.bool_)
    known[both] = True
    positions = np.flatnonzero(known)
    place = np.cumsum(known) - 1
    keys = np.repeat(np.arange(len(lists)) * len(positions), lists.counts) + place[both]
    there = np.zeros(len(lists) * len(positions), dtype=np.bool_)
    there[keys] = True
    used = np.flatnonzero(there)
    bounds = np.searchsorted(used, np.arange(len(lists) + 1) * len(positions))
    number = np.empty(len(there), dtype=np.int64)
    number[used] = np.arange(len(used)) - np.repeat(bounds[:-1], np.diff(bounds))
    names = [lists.category_names[position] for position in positions.tolist()]
    return names, bounds, used % max(len(positions), 1), number[keys]


def _encoded(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _MOST_TEXT:
        raise InvalidInput(f"{text[:40]!r}… has {len(encoded)} bytes; a list record holds names of {_MOST_TEXT}")
    return encoded
