"""The list record: one retrieval list as bytes, written once and read everywhere.

LEADRE §4.4.1. The one feature that the online store and the retrieval log hold of a list; docs/features.md has it byte
by byte. Little-endian. A record that is missing, cut, altered or of another format is an absent list, never an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.lists import Lists
from leadre.derivation.own_numbers import distinct_of, names_of
from leadre.derivation.record_layout import (
    FEW,
    FIRST_FORMAT,
    FORMAT,
    ID_TYPES,
    MOST_ADS,
    MOST_COUNTED,
    PER_AD,
    PER_LIST,
    SHORTEST,
    SOURCES,
    TYPES,
    WHOLE,
    Shape,
    ads_of,
    by_shape,
    fence_checks,
    layout_of,
    places_of,
)
from leadre.domain.retrieval import Source
from leadre.errors import InvalidInput

_MOST_TEXT = 2**16 - 1
_LIMITS = np.array([2**8, 2**16, 2**32], dtype=np.uint64)
_COUNTERS = ("release_epochs", "behavior_sequences")
_ALIKE = ("ad_ids", "shares", "log_probabilities", "directions")  # written as they are
_Part: TypeAlias = tuple[Any, NDArray[Any]]  # the rows of a column, and their values


def pack(lists: Lists) -> list[bytes]:
    """Write each list as a record; an absent list as an empty one.

    Raises:
        InvalidInput: a list of more than `MOST_ADS` ads, a name of more than 65,535 bytes, or an epoch or a sequence
            beyond `MOST_COUNTED`.
    """
    counts, offsets = lists.counts, lists.offsets
    if counts.max(initial=0) > MOST_ADS:
        raise InvalidInput(f"a list has {counts.max()} ads; a record holds {MOST_ADS}: lower the beam width")
    for name in _COUNTERS:
        values = getattr(lists, name)
        if values.min(initial=0) < 0 or values.max(initial=0) > MOST_COUNTED:
            raise InvalidInput(f"{name} from {values.min()} to {values.max()}: a record holds 0 to {MOST_COUNTED}")
    names, bounds, used, (first_numbers, second_numbers) = names_of(lists)
    advertisers, ends, advertiser_numbers = distinct_of(lists.advertiser_ids.view(np.uint64), offsets)
    encoded = [_encoded(name) for name in names]
    texts = {text: _encoded(text) for text in {*lists.releases, *lists.index_versions}}
    columns: dict[str, Any] = {
        "format": np.full(len(lists), FORMAT, dtype=np.uint8),
        "source": np.array([SOURCES.index(source) for source in lists.sources], dtype=np.uint8),
        **{name: getattr(lists, name) for name in (*_COUNTERS, *PER_LIST)},
        "fence_check": fence_checks(lists.release_epochs, lists.behavior_sequences),
        "levels": lists.levels,
        "wide": _wide(lists),
        "width": lists.widths,
        "count": counts,
        "names": np.diff(bounds),
        "advertisers": np.diff(ends),
        "id_bytes": _bytes_for(_greatest(lists.ad_ids.view(np.uint64), offsets)),
        "advertiser_bytes": _bytes_for(_greatest(advertisers, ends)),
        "release_bytes": np.array([len(texts[text]) for text in lists.releases], dtype=np.int64),
        "version_bytes": np.array([len(texts[text]) for text in lists.index_versions], dtype=np.int64),
    }
    per_ad = {
        **{name: getattr(lists, name) for name in _ALIKE},
        "advertiser_numbers": advertiser_numbers,
        "first_categories": first_numbers,
        "second_categories": second_numbers,
    }
    heads = [b""] * len(lists)
    for shape, chosen in _shapes(columns, len(lists)):
        written = np.empty(len(chosen), dtype=layout_of(shape))
        everything = len(chosen) == len(lists)
        for name, values in columns.items():
            written[name] = values if everything else values[chosen]
        written["mean_embedding"] = lists.mean_embedding[chosen, : shape.width]
        ads = ads_of(offsets, chosen, shape.ads)
        for name, values in per_ad.items():
            part = values[ads] if values.ndim == 1 else values[ads, : written[name].shape[2]]
            written[name] = part.reshape(written[name].shape)
        codes = lists.codes[ads, : shape.levels].reshape(len(chosen), shape.ads, shape.levels)
        written["wide_codes"], written["narrow_codes"] = codes[..., : shape.wide], codes[..., shape.wide :]
        size, block = written.itemsize, written.tobytes()
        for place, u in enumerate(chosen.tolist()):
            heads[u] = block[place * size : (place + 1) * size]

    tables = {dtype.itemsize: advertisers.astype(dtype).tobytes() for dtype in ID_TYPES}
    lengths = np.array([len(name) for name in encoded], dtype="<u2")[used].tobytes()
    own_names = [encoded[number] for number in used.tolist()]
    records = []
    for head, size, (first, last), (begin, end), release, version in zip(
        heads,
        columns["advertiser_bytes"].tolist(),
        pairwise(ends.tolist()),
        pairwise(bounds.tolist()),
        lists.releases,
        lists.index_versions,
        strict=True,
    ):
        table, tail = tables[size][first * size : last * size], own_names[begin:end]
        body = b"".join((head, table, lengths[2 * begin : 2 * end], texts[release], texts[version], *tail))
        records.append(body + crc32(body).to_bytes(4, "little"))
    return records


def unpack(records: Iterable[Any]) -> Lists:
    """Read U records; what is no whole record (None, NaN, cut, altered, of a later format) is an absent list."""
    given = [whole_record(record) for record in records]
    heads = [_NO_HEAD if record is None else _read_head(record) for record in given]
    names: dict[str, int] = {}
    numbers: list[int] = []  # in `names`, of the names of each list in turn
    first_number = [0]
    for head in heads:
        numbers += [names.setdefault(name, len(names)) for name in head.names]
        first_number.append(len(numbers))
    present = np.array([head is not _NO_HEAD for head in heads], dtype=np.bool_)
    offsets = np.array([*accumulate((head.shape.ads for head in heads), initial=0)])
    number, first = np.array([*numbers, 0], dtype=np.int32), np.array(first_number)
    broken = np.zeros(len(given), dtype=np.bool_)
    parts: dict[str, list[_Part]] = {name: [] for name in TYPES}
    for shape, chosen in by_shape(None if head is _NO_HEAD else head.shape for head in heads):
        layout = layout_of(shape)
        read = np.frombuffer(b"".join([given[u][: layout.itemsize] for u in chosen.tolist()]), dtype=layout)
        ads = ads_of(offsets, chosen, shape.ads)
        for name in (*PER_LIST, "mean_embedding"):
            parts[name].append((chosen, read[name]))
        for name in _COUNTERS if shape.format != FIRST_FORMAT else ():
            parts[name].append((chosen, read[name]))
        flat = {name: read[name] for name in _ALIKE}
        flat["codes"] = read["wide_codes"] if shape.wide else read["narrow_codes"]
        if 0 < shape.wide < shape.levels:
            flat["codes"] = np.concatenate((read["wide_codes"], read["narrow_codes"]), axis=2)
        for name in ("first_categories", "second_categories"):
            position = first[chosen, None] + read[name]
            _note(broken, chosen, position >= first[chosen + 1, None])
            flat[name] = number.take(position, mode="clip")
        if shape.format == FIRST_FORMAT:
            flat["advertiser_ids"] = read["advertiser_ids"]
        else:
            tables = [heads[u].advertisers for u in chosen.tolist()]
            begins = np.array([*accumulate(map(len, tables), initial=0)]) // shape.advertiser_bytes
            table = np.frombuffer(b"".join(tables) + bytes(shape.advertiser_bytes), f"<u{shape.advertiser_bytes}")
            position = begins[:-1, None] + read["advertiser_numbers"]
            _note(broken, chosen, position >= begins[1:, None])
            flat["advertiser_ids"] = table.take(position, mode="clip")
        for name, values in flat.items():
            parts[name].append((ads, values.reshape(len(chosen) * shape.ads, *values.shape[2:])))
        _note(broken, chosen, ~np.isfinite(read["generated_at_s"])[:, None])
    if broken.any():  # its checksum is right, and yet it says nothing: none of ours
        return unpack([None if bad else record for bad, record in zip(broken.tolist(), given, strict=True)])
    rows = {**dict.fromkeys(TYPES, len(given)), **dict.fromkeys(PER_AD, int(offsets[-1]))}
    columns = {name: _put_together(of_name, rows[name], TYPES[name]) for name, of_name in parts.items()}
    columns["behavior_at_s"][~present] = np.nan
    return Lists(
        offsets=offsets,
        present=present,
        levels=np.array([head.shape.levels for head in heads], dtype=np.uint8),
        widths=np.array([head.shape.width for head in heads], dtype=np.uint16),
        category_names=(*names,),
        releases=tuple([head.release for head in heads]),
        index_versions=tuple([head.index_version for head in heads]),
        sources=tuple([head.source for head in heads]),
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


def _note(broken: NDArray[np.bool_], chosen: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
    """Note which of the chosen lists have something wrong."""
    if wrong.any():
        broken[chosen] |= wrong.any(axis=1)


class _Head(NamedTuple):
    shape: Shape
    source: Source
    advertisers: bytes
    release: str
    index_version: str
    names: Sequence[str]


_NO_HEAD = _Head(Shape(FORMAT, 0, 0, 0, 0, 1, 1, False, False), SOURCES[0], b"", "", "", ())  # noqa: FBT003 - a tuple's


def whole_record(record: Any) -> bytes | None:
    """Return a record's bytes; None for what is none, or was cut or altered."""
    if isinstance(record, (bytearray, memoryview)):
        record = bytes(record)
    sound = isinstance(record, bytes) and len(record) >= SHORTEST and record[0] in (FORMAT, FIRST_FORMAT)
    return record if sound and crc32(record) == WHOLE else None


def _read_head(record: bytes) -> _Head:
    """Read the shape and what follows the fixed part; `_NO_HEAD` when lengths do not add up, or there is no text."""
    source = record[1] if record[0] == FORMAT else 0
    places = places_of(record)
    if places is None or source >= len(SOURCES):
        return _NO_HEAD
    try:
        lengths = struct.unpack_from(places.lengths, record, places.names)
        edges = [*accumulate((*places.texts, *lengths), initial=places.names + 2 * len(lengths))]
        if edges[-1] != len(record) - 4:
            return _NO_HEAD
        release, version, *names = [record[a:b].decode() for a, b in pairwise(edges)]
    except (ValueError, struct.error):
        return _NO_HEAD
    return _Head(places.shape, SOURCES[source], record[places.advertisers : places.names], release, version, names)


def _shapes(columns: dict[str, NDArray[Any]], lists: int) -> Iterable[tuple[Shape, NDArray[np.int64]]]:
    """Group lists by the shape of their records."""
    names = ("levels", "wide", "width", "count", "id_bytes", "advertiser_bytes")
    parts = [columns[name] for name in names] + [columns[name] > FEW for name in ("names", "advertisers")]
    if lists and all((part == part[0]).all() for part in parts):  # as a rule
        return [(Shape(FORMAT, *(part[0].item() for part in parts)), np.arange(lists))]
    return by_shape(Shape(FORMAT, *shape) for shape in zip(*(part.tolist() for part in parts), strict=True))


def _wide(lists: Lists) -> NDArray[np.int64]:
    """Return how many leading codes of each list's S-IDs have two bytes: up to the last level with a code above 255."""
    needed = np.zeros(len(lists), dtype=np.int64)
    if lists.codes.max(initial=0) >= FEW:
        of_ad = ((lists.codes >= FEW) * np.arange(1, lists.codes.shape[1] + 1)).max(axis=1)
        needed = _greatest(of_ad, lists.offsets).astype(np.int64)
    return needed


def _greatest(values: NDArray[Any], bounds: NDArray[np.int64]) -> NDArray[Any]:
    """Return the greatest of each stretch; 0 of an empty one."""
    greatest = np.zeros(len(bounds) - 1, dtype=values.dtype)
    full = np.flatnonzero(bounds[1:] > bounds[:-1])
    if len(full):
        greatest[full] = np.maximum.reduceat(values, bounds[full])
    return greatest


def _bytes_for(greatest: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return in how many bytes numbers up to these are written: 1, 2, 4 or 8."""
    return 1 << np.searchsorted(_LIMITS, greatest, side="right")


def _encoded(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > _MOST_TEXT:
        raise InvalidInput(f"{text[:40]!r}… has {len(encoded)} bytes; a list record holds names of {_MOST_TEXT}")
    return encoded
