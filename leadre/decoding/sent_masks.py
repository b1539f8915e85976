"""Filters on their way to an engine instance: sent once, then by name; a new one as its difference to a known one.

LEADRE §4.4.2. A filter is a bitmap of one bit an ad, 1.2 MB at ten million, and every change in the catalog makes new
ones. An instance keeps those it was sent, a request names them by digest, and a new one goes as its XOR with the
nearest that the instance has, deflated: an ad paused among ten million costs some dozen bytes.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.trie.live_mask import LiveMask

Words = NDArray[np.uint64]

CLIENT_BYTES, SERVER_BYTES = 128 << 20, 512 << 20
"""Bitmaps that a proxy remembers of an instance, and that an instance keeps (ours): an instance has several proxies."""
_BASES, _SAMPLE = 32, 4096
"""A new filter is compared to so many of the last ones, on about so many of its words."""
_FEW = 8
"""Where fewer than one word in so many differs, only those are sent: nothing of a bitmap's length is deflated then."""


class SentMask(msgspec.Struct, frozen=True, array_like=True):
    """A filter. `packed` is its words XOR those of `base` (or nothing), deflated; empty where the instance has it.

    With `places` (uint32) it is only the words there; the others are those of `base`.
    """

    digest: bytes
    base: bytes = b""
    packed: bytes = b""
    places: bytes = b""


class UnknownMasks(Exception):
    """The instance does not have some filters that a request names."""

    def __init__(self, digests: Sequence[bytes]) -> None:
        super().__init__(f"{len(digests)} filters are not known here; send them whole")
        self.digests = tuple(digests)


def digest_of(mask: LiveMask) -> bytes:
    """Return what names a filter, 16 bytes."""
    size = mask.leaves.to_bytes(8, "little")
    return hashlib.blake2b(np.ascontiguousarray(mask.words, "<u8").data, digest_size=16, salt=size).digest()


class SentMasks:
    """What a proxy knows an instance to have. Thread-safe.

    Args:
        most_bytes: of bitmaps remembered; fewer than the instance keeps.
    """

    def __init__(self, *, most_bytes: int = CLIENT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._had: OrderedDict[bytes, Words] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def pack(self, masks: Sequence[tuple[bytes, LiveMask]]) -> tuple[SentMask, ...]:
        """Return filters, given with their digests, as they are sent: by name where the instance has them."""
        sent = []
        for digest, mask in masks:
            with self._lock:
                known = digest in self._had
                if known:
                    self._had.move_to_end(digest)
                near = [] if known else list(islice(reversed(self._had.items()), _BASES))
            if known:
                sent.append(SentMask(digest))
                continue
            words = np.ascontiguousarray(mask.words, "<u8")
            base, before = _nearest(words, near)
            changed = words ^ before if base else words
            places = np.flatnonzero(changed).astype("<u4") if base else np.empty(0, "<u4")
            few = 0 < len(places) < len(words) // _FEW
            packed = zlib.compress((changed[places] if few else changed).data, 1)
            sent.append(SentMask(digest, base, packed, places.tobytes() if few else b""))
        return tuple(sent)

    def arrived(self, masks: Sequence[tuple[bytes, LiveMask]]) -> None:
        """Note filters that the instance has now."""
        with self._lock:
            for digest, mask in masks:
                if digest not in self._had:
                    self._had[digest] = mask.words
                    self._bytes += mask.words.nbytes
                self._had.move_to_end(digest)
            while self._bytes > self._most_bytes and len(self._had) > 1:
                self._bytes -= self._had.popitem(last=False)[1].nbytes

    def forget(self) -> None:
        """Take it that the instance has none: it is a new process, or its memory was short."""
        with self._lock:
            self._had.clear()
            self._bytes = 0


class KeptMasks:
    """The filters that an instance keeps, by digest. Thread-safe.

    Args:
        most_bytes: of bitmaps kept; those used least recently go.
    """

    def __init__(self, *, most_bytes: int = SERVER_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, LiveMask] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def unpack(self, sent: Sequence[SentMask], *, leaves: int) -> list[LiveMask]:
        """Return the filters of a request over an index of `leaves` ads.

        Raises:
            UnknownMasks: some are named, or rest on one, that is not kept.
            InvalidInput: bytes that are no filter over so many ads, or not the one that their digest names.
        """
        found, unknown = [], []
        for mask in sent:
            with self._lock:
                kept = self._kept.get(mask.digest)
                base = self._kept.get(mask.base) if mask.base else None
            if kept is None and (not mask.packed or (mask.base and base is None)):
                unknown.append(mask.digest)
                continue
            made = kept or _inflated(mask, base, words=leaves // 64 + 1, leaves=leaves)
            if made.leaves != leaves:
                raise InvalidInput(
                    f"a filter over {made.leaves} ads, the index has {leaves}; make it from this index",
                    column="filters",
                )
            found.append(made)
            self._keep(mask.digest, made)
        if unknown:
            raise UnknownMasks(unknown)
        return found

    def _keep(self, digest: bytes, mask: LiveMask) -> None:
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = mask
                self._bytes += mask.words.nbytes
            self._kept.move_to_end(digest)
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].words.nbytes


def _nearest(words: Words, near: Sequence[tuple[bytes, Words]]) -> tuple[bytes, Words]:
    """Return the bitmap that differs least from `words` on a sample of them, if it is nearer than an empty one."""
    step = max(1, len(words) // _SAMPLE)
    sample = words[::step]
    best, least, which = b"", int(np.bitwise_count(sample).sum()), words
    for digest, other in near:
        if len(other) == len(words):
            differs = int(np.bitwise_count(sample ^ other[::step]).sum())
            if differs < least:
                best, least, which = digest, differs, other
    return best, which


def _inflated(sent: SentMask, base: LiveMask | None, *, words: int, leaves: int) -> LiveMask:
    if base is not None and len(base.words) != words:
        raise InvalidInput("a filter rests on one of another index; send it whole", column="filters")
    if len(sent.places) % 4 or (sent.places and base is None):
        raise InvalidInput("a filter's places are no array, or rest on no other filter", column="filters")
    places = np.frombuffer(sent.places, "<u4")
    if len(places) and (int(places.max()) >= words or (np.diff(places.astype(np.int64)) <= 0).any()):
        raise InvalidInput(f"a filter's places are not ascending, or beyond its {words} words", column="filters")
    found = _words(sent.packed, len(places) or words, leaves=leaves)
    if len(places) and base is not None:
        changed, found = found, base.words.copy()
        found[places] ^= changed
    elif base is not None:
        found ^= base.words
    if int(found[-1]) >> (leaves % 64):
        raise InvalidInput(f"a filter lets ads be generated beyond the index's {leaves}", column="filters")
    mask = LiveMask(found, leaves)
    if digest_of(mask) != sent.digest:
        raise InvalidInput("a filter is not the one that its digest names; send it again", column="filters")
    return mask


def _words(packed: bytes, count: int, *, leaves: int) -> Words:
    inflate = zlib.decompressobj()
    try:
        octets = inflate.decompress(packed, count * 8)  # never more, whatever the bytes ask for
    except zlib.error as error:
        raise InvalidInput(f"a filter cannot be inflated: {error}", column="filters") from None
    if len(octets) != count * 8 or inflate.decompress(inflate.unconsumed_tail, 1):
        raise InvalidInput(f"{count} words of a filter over {leaves} ads were to come, not these", column="filters")
    return np.frombuffer(octets, "<u8").astype(np.uint64)
