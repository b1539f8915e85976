"""The array trie: all S-IDs of an index in a few flat arrays, children of many prefixes at once, live counts by prefix.

LEADRE §3.3, Algorithm 1 (leadre.indexing.trie_reference is the algorithm as printed). With the S-IDs sorted, the ads
below a node are one contiguous range of leaves, so a node *is* its range and no pointers are needed:

- a shallow depth, with far fewer nodes than ads, stores for each of its nodes the first leaf and the code;
- the codes of the deeper levels are packed into one or two machine words per ad, and the children of a node are
  read off its leaves.

4 x 1024 codes and 10 million ads take about 4.6 bytes an ad. A filter is a bitmap over the leaves with popcount ranks:
how many live ads stand below a node is two look-ups, and children without any are left out, exactly as if the
trie had been built from the live ads alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.live_mask import Ints
from leadre.indexing.live_mask import LiveMask as LiveMask  # beside the trie it belongs to

MAX_LEAVES = 2**31 - 1
_SIZE_BITS = 31
_SIZE_MASK = np.int64(MAX_LEAVES)
_WORD_BITS = 64
_SHALLOW = 4  # a depth is stored by node when its nodes hold at least this many ads on average


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """Children of many nodes, grouped by parent, codes ascending.

    All int64[C]: `parent` points into the nodes asked for, `code` is the child's code, `node` the child.
    """

    parent: Ints
    code: Ints
    node: Ints


class Trie:
    """S-IDs in lexicographic order; leaf i is the i-th one.

    A node is an int64: the root is 0, a node at depth L its leaf number, and one between them its leaf range,
    `low << 31 | (high - low)`. Nodes come from `children` and `find`; others give undefined results.
    """

    __slots__ = ("_arrays", "bits", "leaves", "levels", "shallow")

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Wrap the flat arrays that `arrays` returns."""
        self._arrays = dict(arrays)
        self.leaves, self.levels, self.shallow = (int(number) for number in arrays["shape"])
        self.bits = tuple(int(number) for number in arrays["bits"])

    @classmethod
    def build(cls, codes: NDArray[np.integer[Any]]) -> Trie:
        """Build the trie from S-IDs.

        Args:
            codes: [N, L], rows in strictly ascending lexicographic order; N may be 0.

        Raises:
            InvalidInput: rows unsorted or repeated, a negative code, one of more than 31 bits, or too many rows.
        """
        if codes.ndim != 2 or codes.shape[1] < 1 or not np.issubdtype(codes.dtype, np.integer):
            raise InvalidInput(f"S-IDs are integers [N, L], these are {codes.dtype} of shape {codes.shape}")
        leaves, levels = codes.shape
        if leaves > MAX_LEAVES:
            raise InvalidInput(f"{leaves} S-IDs: a trie holds at most {MAX_LEAVES}; split the inventory")
        highest = codes.max(axis=0, initial=0)
        if codes.min(initial=0) < 0 or highest.max() >= 2**31:
            raise InvalidInput("codes must lie in [0, 2^31)")
        bits = tuple(max(1, int(code).bit_length()) for code in highest)
        arrays: dict[str, NDArray[Any]] = {}
        starts_node = np.ones(leaves, np.bool_)
        starts_node[1:] = False
        shallow = 0
        for level in range(levels):
            column = np.ascontiguousarray(codes[:, level])
            before, after = column[:-1], column[1:]
            if (backwards := (after < before) & ~starts_node[1:]).any():
                raise InvalidInput("S-IDs are not in ascending order; sort them", row=int(backwards.argmax()) + 2)
            starts_node[1:] |= after != before
            if shallow == level < levels - 1 and _SHALLOW * np.count_nonzero(starts_node) <= leaves:
                shallow = level + 1
                starts = np.flatnonzero(starts_node)
                arrays[f"starts_{shallow}"] = np.append(starts, leaves).astype(np.uint32)
                arrays[f"codes_{shallow}"] = column[starts].astype(np.uint16 if bits[level] <= 16 else np.uint32)
        if not starts_node.all():
            row = int((~starts_node).argmax())
            raise InvalidInput(f"S-ID {codes[row].tolist()} is there twice; S-IDs are unique", row=row + 1)
        for word, group in enumerate(_words(bits, shallow)):
            width = sum(bits[level] for level in group)
            packed: NDArray[Any] = np.zeros(leaves, np.uint32 if width <= 32 else np.uint64)
            for level in group:
                packed <<= packed.dtype.type(bits[level])
                packed |= codes[:, level].astype(packed.dtype)
            arrays[f"word_{word}"] = packed
        arrays["shape"] = np.array([leaves, levels, shallow])
        arrays["bits"] = np.array(bits)
        return cls(arrays)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the flat arrays, by name; they may be memory-mapped."""
        return dict(self._arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trie:
        """Wrap arrays that `arrays` returned, without copying."""
        return cls(arrays)

    def leaf_range(self, depth: int, nodes: Ints) -> tuple[Ints, Ints]:
        """Return the leaves below each node, [low, high): two int64[n]."""
        if depth == 0:
            return np.zeros_like(nodes), np.full_like(nodes, self.leaves)
        if depth == self.levels:
            return nodes, nodes + 1
        low = nodes >> _SIZE_BITS
        return low, low + (nodes & _SIZE_MASK)

    def children(self, depth: int, nodes: Ints, *, live: LiveMask | None = None) -> Children:
        """Return the children of nodes that all stand at one depth.

        Args:
            depth: 0 (the root) to L - 1.
            nodes: int64[n]; a node may be there more than once.
            live: leave out children below which no ad is live.

        Raises:
            InvalidInput: another depth, or a mask of another number of leaves.
        """
        if not 0 <= depth < self.levels:
            raise InvalidInput(f"nodes with children stand at depths 0 to {self.levels - 1}, not at {depth}")
        if live is not None and live.leaves != self.leaves:
            raise InvalidInput(f"the mask covers {live.leaves} leaves, the trie has {self.leaves}: different indexes")
        low, high = self.leaf_range(depth, nodes)
        if depth < self.shallow:
            starts, codes = self._arrays[f"starts_{depth + 1}"], self._arrays[f"codes_{depth + 1}"]
            parent, position = _spread(*self._positions(starts, low, high))
            code = codes[position].astype(np.int64)
            low, high = starts[position].astype(np.int64), starts[position + 1].astype(np.int64)
        else:
            parent, leaf = _spread(low, high)
            codes_of_leaves = self._codes_at(depth)(leaf)
            first = np.ones(len(leaf), np.bool_)
            first[1:] = (codes_of_leaves[1:] != codes_of_leaves[:-1]) | (parent[1:] != parent[:-1])
            at = np.flatnonzero(first)
            parent, code, low = parent[at], codes_of_leaves[at], leaf[at]
            high = low + np.diff(at, append=len(leaf))
        if live is not None:
            kept = np.flatnonzero(live.count(low, high))
            parent, code, low, high = parent[kept], code[kept], low[kept], high[kept]
        return Children(parent=parent, code=code, node=self._node(depth + 1, low, high))

    def find(self, codes: NDArray[np.integer[Any]]) -> Ints:
        """Return the node of each prefix [n, d], or -1 where no S-ID begins with it; int64[n]."""
        depth = codes.shape[1]
        if depth == 0:
            return np.zeros(len(codes), np.int64)
        low = np.zeros(len(codes), np.int64)
        high = np.full(len(codes), self.leaves if depth <= self.levels else 0)
        for level in range(min(depth, self.levels)):
            wanted = codes[:, level].astype(np.int64)
            if level < self.shallow:
                starts, stored = self._arrays[f"starts_{level + 1}"], self._arrays[f"codes_{level + 1}"]
                first, last = self._positions(starts, low, high)
                found = _bisect(partial(_take, stored), first, last, wanted)
                here = found < last
                here[here] = stored[found[here]] == wanted[here]
                low, high = low.copy(), low.copy()  # empty unless found
                low[here], high[here] = starts[found[here]], starts[found[here] + 1]
            else:
                code_at = self._codes_at(level)
                low, high = _bisect(code_at, low, high, wanted), _bisect(code_at, low, high, wanted + 1)
        return np.where(low < high, self._node(depth, low, high), -1)

    def contains(self, codes: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return whether each row [n, L] is a whole S-ID of the trie, bool[n]."""
        if codes.shape[1] != self.levels:
            raise InvalidInput(f"whole S-IDs have {self.levels} codes here, these have {codes.shape[1]}")
        return self.find(codes) >= 0

    def _node(self, depth: int, low: Ints, high: Ints) -> Ints:
        if depth == 0:
            return np.zeros_like(low)
        return low if depth == self.levels else low << _SIZE_BITS | (high - low)

    @staticmethod
    def _positions(starts: NDArray[np.uint32], low: Ints, high: Ints) -> tuple[Ints, Ints]:
        # needles of the array's own type: otherwise numpy would convert the whole array
        first = np.searchsorted(starts, low.astype(np.uint32)).astype(np.int64)
        return first, np.searchsorted(starts, high.astype(np.uint32)).astype(np.int64)

    def _codes_at(self, level: int) -> Callable[[Ints], Ints]:
        for number, group in enumerate(_words(self.bits, self.shallow)):
            if level in group:
                word = self._arrays[f"word_{number}"]
                shift = word.dtype.type(sum(self.bits[later] for later in group if later > level))
                mask = word.dtype.type((1 << self.bits[level]) - 1)
                return partial(_unpack, word, shift, mask)
        raise AssertionError(level)


def _words(bits: tuple[int, ...], shallow: int) -> list[list[int]]:
    """Group the levels below the shallow ones into words of at most 64 bits."""
    groups: list[list[int]] = []
    for level in range(shallow, len(bits)):
        if not groups or sum(bits[other] for other in groups[-1]) + bits[level] > _WORD_BITS:
            groups.append([])
        groups[-1].append(level)
    return groups


def _take(stored: NDArray[Any], at: Ints) -> Ints:
    return stored[at].astype(np.int64)


def _unpack(word: NDArray[Any], shift: Any, mask: Any, leaf: Ints) -> Ints:
    codes: Ints = ((word[leaf] >> shift) & mask).astype(np.int64)
    return codes


def _spread(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Return every position of every range [low, high), and which range it is from."""
    sizes = high - low
    parent = np.repeat(np.arange(len(low)), sizes)
    shift = low - (np.cumsum(sizes) - sizes)
    return parent, np.arange(len(parent)) + shift[parent]


def _bisect(value_at: Callable[[Ints], Ints], low: Ints, high: Ints, wanted: Ints) -> Ints:
    """Return in each ascending range [low, high) the first position whose value is not below the wanted one."""
    low, high = low.copy(), high.copy()
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) >> 1
        right = value_at(middle) < wanted[open_]
        low[open_] = np.where(right, middle + 1, low[open_])
        high[open_] = np.where(right, high[open_], middle)
    return low
