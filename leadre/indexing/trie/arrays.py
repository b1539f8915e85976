"""The trie's flat arrays: made from sorted S-IDs, and merged with those of new ones.

LEADRE §3.3. The arrays, by name, of a trie over N S-IDs of L codes:

- `shape`: N, L, and how many depths are stored by node (the shallow ones);
- `bits`: bits of each level's codes; `nodes`: nodes at each depth from 1 to L;
- `starts_d`, `codes_d`: first leaf and code of every node at the shallow depth d, and N as the last start;
- `word_i`: the codes of the levels below, packed, one word a leaf; more words where one has not bits enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.trie.insertion import Insertion, Ints

Arrays = dict[str, NDArray[Any]]
Codes = NDArray[np.integer[Any]]

MAX_LEAVES = 2**31 - 1
_WORD_BITS = 64
_SHALLOW = 4  # a depth is stored by node when its nodes hold at least this many ads on average


def build_arrays(codes: Codes) -> Arrays:
    """Return the arrays of S-IDs [N, L], rows in strictly ascending lexicographic order.

    Raises:
        InvalidInput: rows unsorted or repeated, a negative code, one of more than 31 bits, or too many rows.
    """
    bits = code_bits(codes)
    leaves, levels = codes.shape
    arrays: Arrays = {}
    opens: NDArray[np.bool_] = np.zeros(leaves, np.bool_)  # a node, at the depth in work
    opens[:1] = True
    nodes: list[int] = []
    for level in range(levels):
        column = np.ascontiguousarray(codes[:, level])
        before, after = column[:-1], column[1:]
        if (backwards := (after < before) & ~opens[1:]).any():
            raise InvalidInput("S-IDs are not in ascending order; sort them", row=int(backwards.argmax()) + 2)
        opens[1:] |= after != before
        nodes.append(int(np.count_nonzero(opens)))
        if level + 1 == shallow_depths(nodes, leaves=leaves, levels=levels):
            starts = np.flatnonzero(opens)
            arrays[f"starts_{level + 1}"] = np.append(starts, leaves).astype(np.uint32)
            arrays[f"codes_{level + 1}"] = column[starts].astype(np.uint16 if bits[level] <= 16 else np.uint32)
    if not opens.all():
        row = int((~opens).argmax())
        raise InvalidInput(f"S-ID {codes[row].tolist()} is there twice; S-IDs are unique", row=row + 1)
    shallow = shallow_depths(nodes, leaves=leaves, levels=levels)
    return {**arrays, **_packed(codes, bits, shallow), **_described(bits, nodes, leaves=leaves, shallow=shallow)}


def merged_arrays(
    arrays: Mapping[str, NDArray[Any]],
    codes: Codes,
    *,
    at: Insertion,
    shared_before: Ints,
    shared_after: Ints,
) -> Arrays | None:
    """Return what `build_arrays` gives for all S-IDs, or None where their arrays are laid out anew.

    That is so when a level needs more bits, or another number of depths is stored by node: both rare.

    Args:
        arrays: of the old S-IDs.
        codes: the new ones [n, L], ascending, none of them old.
        at: where they go.
        shared_before: int64[n], how many leading codes a new S-ID shares with the old one before it.
        shared_after: int64[n], likewise with the old one after it.
    """
    leaves, levels, shallow = (int(number) for number in arrays["shape"])
    known = np.maximum(shared_before, shared_after)  # leading codes there before this S-ID: below, it opens nodes
    known[1:] = np.maximum(known[1:], shared_codes(codes[:-1], codes[1:]))
    nodes = [int(count) + int((known <= level).sum()) for level, count in enumerate(arrays["nodes"].tolist())]
    bits = tuple(int(number) for number in arrays["bits"])
    leaves += len(codes)
    needed = np.maximum(bits, code_bits(codes)).tolist()
    if tuple(needed) != bits or shallow_depths(nodes, leaves=leaves, levels=levels) != shallow:
        return None
    merged = _described(bits, nodes, leaves=leaves, shallow=shallow)
    places = at.added - np.arange(len(codes))
    for depth in range(1, shallow + 1):
        starts = arrays[f"starts_{depth}"]
        opens = known < depth
        place = np.searchsorted(starts[:-1], places.astype(np.uint32))  # nodes that begin before
        nodes_at = Insertion(place[opens], rows=len(starts) - 1)
        sizes = nodes_at.merge(np.diff(starts), 0)
        of_next = (shared_after >= depth) & (shared_before < depth)
        sizes += np.bincount(place - 1 + np.cumsum(opens) + of_next, minlength=len(sizes)).astype(sizes.dtype)
        merged[f"starts_{depth}"] = np.append(0, np.cumsum(sizes)).astype(np.uint32)
        merged[f"codes_{depth}"] = nodes_at.merge(arrays[f"codes_{depth}"], codes[opens, depth - 1])
    for name, packed in _packed(codes, bits, shallow).items():
        merged[name] = at.merge(arrays[name], packed)
    return merged


def code_bits(codes: Codes) -> tuple[int, ...]:
    """Return the bits that each level's codes need, at least 1.

    Raises:
        InvalidInput: what is no matrix of codes, or too large for a trie.
    """
    if codes.ndim != 2 or codes.shape[1] < 1 or not np.issubdtype(codes.dtype, np.integer):
        raise InvalidInput(f"S-IDs are integers [N, L], these are {codes.dtype} of shape {codes.shape}")
    if len(codes) > MAX_LEAVES:
        raise InvalidInput(f"{len(codes)} S-IDs: a trie holds at most {MAX_LEAVES}; split the inventory")
    highest = codes.max(axis=0, initial=0)
    if codes.min(initial=0) < 0 or highest.max() >= 2**31:
        raise InvalidInput("codes must lie in [0, 2^31)")
    return tuple(max(1, int(code).bit_length()) for code in highest)


def shared_codes(first: Codes, second: Codes) -> Ints:
    """Return how many leading codes each two rows share, int64[n]."""
    differ = first != second
    shared: Ints = np.where(differ.any(axis=1), differ.argmax(axis=1), first.shape[1])
    return shared


def shallow_depths(nodes: Sequence[int], *, leaves: int, levels: int) -> int:
    """Return how many depths are stored by node, given the nodes at the depths from 1; the deepest one never is."""
    return sum(_SHALLOW * count <= leaves for count in nodes[: levels - 1])


def word_groups(bits: Sequence[int], shallow: int) -> list[list[int]]:
    """Group the levels below the shallow ones into words of at most 64 bits."""
    groups: list[list[int]] = []
    for level in range(shallow, len(bits)):
        if not groups or sum(bits[other] for other in groups[-1]) + bits[level] > _WORD_BITS:
            groups.append([])
        groups[-1].append(level)
    return groups


def word_field(bits: Sequence[int], shallow: int, level: int) -> tuple[str, int, int]:
    """Return where the code of a level below the shallow ones is: the word's name, the shift and the mask."""
    for number, group in enumerate(word_groups(bits, shallow)):
        if level in group:
            return f"word_{number}", sum(bits[later] for later in group if later > level), (1 << bits[level]) - 1
    raise AssertionError(level)


def _packed(codes: Codes, bits: Sequence[int], shallow: int) -> Arrays:
    arrays: Arrays = {}
    for number, group in enumerate(word_groups(bits, shallow)):
        width = sum(bits[level] for level in group)
        packed: NDArray[Any] = np.zeros(len(codes), np.uint32 if width <= 32 else np.uint64)
        for level in group:
            packed <<= packed.dtype.type(bits[level])
            packed |= codes[:, level].astype(packed.dtype)
        arrays[f"word_{number}"] = packed
    return arrays


def _described(bits: Sequence[int], nodes: Sequence[int], *, leaves: int, shallow: int) -> Arrays:
    return {
        "shape": np.array([leaves, len(bits), shallow]),
        "bits": np.array(bits),
        "nodes": np.array(nodes, np.int64),
    }
