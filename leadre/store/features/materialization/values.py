"""Values from PostgreSQL's binary format to Feast's (`feast.types.Value`), equal to the byte, without Feast.

LEADRE §4.4.1's user features. A list is one message within the value; numbers in it are packed.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.store.features.layout import varint

Encode = Callable[[bytes], bytes]
"""From a value as COPY's binary format holds it."""

_ARRAY, _LENGTH = Struct(">iiiii"), Struct(">i")
"""Head of an array: dimensions, whether a null is in it, type, size, lower bound. Before each element: its bytes."""
_ELEMENT = b"\x0a"
"""Tag of the values in Feast's list messages: field 1, a length follows."""


def _integer(tag: int) -> Encode:
    head = bytes([tag])
    return lambda value: head + varint(int.from_bytes(value, "big", signed=True) % 2**64)


def _fixed(tag: int) -> Encode:
    head = bytes([tag])
    return lambda value: head + value[::-1]


def _counted(tag: int) -> Encode:
    head = bytes([tag])
    return lambda value: head + varint(len(value)) + value


def _seconds(value: bytes) -> bytes:
    """A timestamptz, microseconds since 2000, as whole Unix seconds."""
    return b"\x40" + varint((int.from_bytes(value, "big", signed=True) // 1_000_000 + 946_684_800) % 2**64)


def _texts(value: bytes) -> bytes:
    written, place = [], _ARRAY.size
    for _ in range(_size(value)):
        (length,) = _LENGTH.unpack_from(value, place)
        written += [_ELEMENT, varint(length), value[place + 4 : place + 4 + length]]
        place += 4 + length
    return _message(12, b"".join(written))


def _integers(value: bytes) -> bytes:
    return _message(14, _packed(b"".join(map(varint, _numbers(value, "i8").astype(np.uint64).tolist()))))


def _floats(field: int, kind: str) -> Encode:
    return lambda value: _message(field, _packed(_numbers(value, kind).astype(f"<{kind}").tobytes()))


_ELEMENTS = {kind: np.dtype([("bytes", ">i4"), ("value", f">{kind}")]) for kind in ("i8", "f8", "f4")}

KINDS: dict[str, tuple[str, Encode]] = {
    "Bytes": ("bytea", _counted(0x0A)),
    "String": ("text", _counted(0x12)),
    "Int32": ("int4", _integer(0x18)),
    "Int64": ("int8", _integer(0x20)),
    "Float64": ("float8", _fixed(0x29)),
    "Float32": ("float4", _fixed(0x35)),
    "Bool": ("bool", _integer(0x38)),
    "UnixTimestamp": ("timestamptz", _seconds),
    "Array(String)": ("text[]", _texts),
    "Array(Int64)": ("int8[]", _integers),
    "Array(Float64)": ("float8[]", _floats(15, "f8")),
    "Array(Float32)": ("float4[]", _floats(16, "f4")),
}
"""Feast's types, as it writes their names: the type of PostgreSQL to cast to, and what encodes it."""


def _size(value: bytes) -> int:
    if len(value) < _ARRAY.size:  # no dimension: an empty array
        return 0
    dimensions, nulls, _, size, _ = _ARRAY.unpack_from(value)
    if dimensions != 1 or nulls:
        raise InvalidInput("a list of a feature holds a null or lists; Feast knows flat ones: mend the source's row")
    return int(size)


def _numbers(value: bytes, kind: str) -> NDArray[Any]:
    return np.frombuffer(value[_ARRAY.size :] if _size(value) else b"", _ELEMENTS[kind])["value"]


def _packed(numbers: bytes) -> bytes:
    return _ELEMENT + varint(len(numbers)) + numbers if numbers else b""


def _message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content
