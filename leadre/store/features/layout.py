"""Feast's Redis layout, byte by byte: keys, field names and values, read and written without importing Feast.

LEADRE §4.4.1. A hash an entity; a field a feature, named by a 32-bit hash of view and feature; a field `_ts:<view>`
with the event time of its row. As Feast 0.67 writes it with entity_key_serialization_version 3 (docs/features.md).
"""

from __future__ import annotations

import struct
from functools import lru_cache

import mmh3
import numpy as np
from numpy.typing import NDArray

VIEW, FEATURE = "retrieved_ads", "retrieved_list"
"""Where a list is: the record is the one feature of its view."""
_STRING, _INT64 = 2, 4
"""Numbers of `feast.types.ValueType`."""
_BYTES_VAL = b"\x0a"
"""Tag of `feast.types.Value.bytes_val`: field 1, a length follows."""
_INT64_LIST, _PACKED = b"\x72", b"\x0a"
"""Tags of `feast.types.Value.int64_list_val`, field 14, and of the numbers in it, one after the other."""
_SECONDS, _NANOS = b"\x08", b"\x10"
"""Tags of google.protobuf.Timestamp: fields 1 and 2, a varint follows."""
_NS = 1_000_000_000


def user_keys(user_ids: NDArray[np.int64], project: str) -> list[bytes]:
    """Return the Redis key of each user.

    Args:
        user_ids: int64[n].
        project: of feature_store.yaml.
    """
    return _keys("user_id", user_ids, project)


def ad_keys(ad_ids: NDArray[np.int64], project: str) -> list[bytes]:
    """Return the Redis key of each ad. See `user_keys`."""
    return _keys("ad_id", ad_ids, project)


@lru_cache(maxsize=256)
def around_id(join_key: str, project: str) -> tuple[bytes, bytes]:
    """Return what stands before and after an entity's id (8 bytes, the least first) in its Redis key."""
    name = join_key.encode()
    return struct.pack(f"<III{len(name)}sII", 1, _STRING, len(name), name, _INT64, 8), project.encode()


@lru_cache(maxsize=4096)
def field(view: str, feature: str) -> bytes:
    """Return the name of a feature's field in the hash of an entity: 4 bytes."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


@lru_cache(maxsize=256)
def timestamp_field(view: str) -> bytes:
    """Return the name of the field that holds the event time of a view's row."""
    return f"_ts:{view}".encode()


@lru_cache(maxsize=4096)
def timestamp_value(time_ns: int) -> bytes:
    """Return an event time as Feast stores it.

    Args:
        time_ns: Unix time in nanoseconds. Feast itself knows whole microseconds.
    """
    seconds, nanos = divmod(time_ns, _NS)
    value = _SECONDS + varint(seconds % 2**64) if seconds else b""
    return value + _NANOS + varint(nanos) if nanos else value


def read_timestamp_value(value: bytes | None) -> int | None:
    """Return the Unix time in nanoseconds that a field holds; None when there is none, or junk."""
    if not value:
        return None
    total, place = 0, 0
    try:
        for tag, unit in ((_SECONDS, _NS), (_NANOS, 1)):
            if value[place : place + 1] == tag:
                number, place = _read_varint(value, place + 1)
                total += (number - 2**64 if number >= 2**63 else number) * unit
    except IndexError:
        return None
    return total if place == len(value) else None


def bytes_value(content: bytes) -> bytes:
    """Return bytes as Feast stores a feature of type Bytes."""
    return _BYTES_VAL + varint(len(content)) + content


def read_bytes_value(value: bytes | None) -> bytes | None:
    """Return the bytes that a field holds; None when there is none, Feast's null, or anything else."""
    if not value or value[:1] != _BYTES_VAL:
        return None
    try:
        length, place = _read_varint(value, 1)
    except IndexError:
        return None
    return value[place:] if place + length == len(value) else None


def _keys(join_key: str, ids: NDArray[np.int64], project: str) -> list[bytes]:
    head, tail = around_id(join_key, project)
    values = np.ascontiguousarray(ids, dtype="<i8").tobytes()
    return [head + values[at : at + 8] + tail for at in range(0, len(values), 8)]


@lru_cache(maxsize=1 << 16)
def varint(number: int) -> bytes:
    """Return a number from 0 to 2^64 - 1 as protobuf writes it: 7 bits a byte, the least first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_varint(value: bytes, place: int) -> tuple[int, int]:
    """Return the number that begins at `place`, and where it ends. Raises IndexError where the value ends before."""
    number = shift = 0
    while True:
        byte = value[place]
        number, place = number | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return number, place
        shift += 7


def last_integers(value: bytes | None, count: int) -> list[int]:
    """Return the last `count` numbers of a list of type Array(Int64), in their order; none of what is no such list."""
    if not value or value[:1] != _INT64_LIST:
        return []
    try:
        length, place = _read_varint(value, 1)
        if place + length != len(value) or not length or value[place : place + 1] != _PACKED:
            return []
        length, begin = _read_varint(value, place + 1)
        if begin + length != len(value) or not length or value[-1] > 0x7F:
            return []
        place = len(value)
        for _ in range(count):  # back over one number: its last byte, and those before it that say "more follows"
            if place == begin:
                break
            place -= 1
            while place > begin and value[place - 1] > 0x7F:
                place -= 1
        found = []
        while place < len(value):
            number, place = _read_varint(value, place)
            found.append(number - 2**64 if number >= 2**63 else number)
        return found
    except IndexError:
        return []
