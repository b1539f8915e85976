"""The array trie: all S-IDs of an index in a few flat arrays, children of many prefixes at once, live counts by prefix.

LEADRE §3.3, Algorithm 1 (leadre.indexing.trie.reference is the algorithm as printed). With the S-IDs sorted, the ads
below a node are one contiguous range of leaves, so a node *is* its range and no pointers are needed:

- a shallow depth, with far fewer nodes than ads, stores for each of its nodes the first leaf and the code;
- the codes of the deeper levels are packed into one or two machine words per ad, and the children of a node are
  read off its leaves; a large node is halved until its parts are short or of one code, so that what is read grows with
  the children and not with the leaves.

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
from leadre.indexing.trie.arrays import Codes, build_arrays, code_bits, merged_arrays, shared_codes, word_field
from leadre.indexing.trie.insertion import Insertion, Ints
from leadre.indexing.trie.live_mask import LiveMask as LiveMask  # beside the trie it belongs to
from leadre.indexing.trie.ranges import bisect, following, spread

SIZE_BITS = 31
"""A node between root and leaf is its first leaf shifted by this, and its number of leaves."""
SCAN = 64
"""Leaves up to which a node, or what halving left of it, is read leaf by leaf."""
_SIZE_MASK = np.int64((1 << SIZE_BITS) - 1)


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

    __slots__ = ("_arrays", "bits", "leaves", "levels", "nodes", "shallow")

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Wrap the flat arrays that `arrays` returns; see leadre.indexing.trie.arrays."""
        self._arrays = dict(arrays)
        self.leaves, self.levels, self.shallow = (int(number) for number in arrays["shape"])
        self.bits = tuple(int(number) for number in arrays["bits"])
        self.nodes = tuple(int(number) for number in arrays["nodes"])

    @classmethod
    def build(cls, codes: Codes) -> Trie:
        """Build the trie from S-IDs.

        Args:
            codes: [N, L], rows in strictly ascending lexicographic order; N may be 0.

        Raises:
            InvalidInput: rows unsorted or repeated, a negative code, one of more than 31 bits, or too many rows.
        """
        return cls(build_arrays(codes))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the flat arrays, by name; they may be memory-mapped."""
        return dict(self._arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trie:
        """Wrap arrays that `arrays` returned, without copying."""
        return cls(arrays)

    def insertion(self, codes: Codes) -> Insertion:
        """Return where new S-IDs go among the leaves.

        Args:
            codes: [n, L], ascending.

        Raises:
            InvalidInput: no codes of this trie's levels, or an S-ID that is there.
        """
        code_bits(codes)
        if codes.shape[1] != self.levels:
            raise InvalidInput(f"whole S-IDs have {self.levels} codes here, these have {codes.shape[1]}")
        low, high = self._descend(codes)
        if (known := low < high).any():
            row = int(known.argmax())
            raise InvalidInput(f"S-ID {codes[row].tolist()} is there already; S-IDs are unique", row=row + 1)
        return Insertion(low, rows=self.leaves)

    def with_added(self, codes: Codes, *, at: Insertion | None = None) -> Trie:
        """Return the trie that `build` gives for these S-IDs and the new ones together, in one pass over the arrays.

        Args:
            codes: the new ones, [n, L], rows in strictly ascending lexicographic order.
            at: their `insertion`, where it is known.

        Raises:
            InvalidInput: rows unsorted or repeated, one that is there already, or a code out of range.
        """
        build_arrays(codes)  # refuses what is not sorted
        at = at or self.insertion(codes)
        place = at.added - np.arange(len(codes))
        shared = []
        for leaf in (place - 1, place):  # the old S-IDs around each new one
            here = (leaf >= 0) & (leaf < self.leaves)
            shared.append(np.zeros(len(codes), np.int64))
            shared[-1][here] = shared_codes(self.codes_of(leaf[here]), codes[here])
        arrays = merged_arrays(self._arrays, codes, at=at, shared_before=shared[0], shared_after=shared[1])
        if arrays is None:
            return Trie.build(at.merge(self.codes_of(np.arange(self.leaves)), codes))
        return Trie(arrays)

    def codes_of(self, leaves: Ints) -> Ints:
        """Return the S-IDs of leaves, int64[n, L]."""
        codes = np.empty((len(leaves), self.levels), np.int64)
        for level in range(self.levels):
            if level < self.shallow:
                starts, stored = self._arrays[f"starts_{level + 1}"], self._arrays[f"codes_{level + 1}"]
                codes[:, level] = stored[np.searchsorted(starts, leaves.astype(np.uint32), side="right") - 1]
            else:
                codes[:, level] = self._codes_at(level)(leaves)
        return codes

    def leaf_range(self, depth: int, nodes: Ints) -> tuple[Ints, Ints]:
        """Return the leaves below each node, [low, high): two int64[n]."""
        if depth == 0:
            return np.zeros_like(nodes), np.full_like(nodes, self.leaves)
        if depth == self.levels:
            return nodes, nodes + 1
        low = nodes >> SIZE_BITS
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
        if not self.leaves:
            nothing = np.empty(0, np.int64)
            return Children(parent=nothing, code=nothing, node=nothing)
        low, high = self.leaf_range(depth, nodes)
        if depth < self.shallow:
            starts, codes = self._arrays[f"starts_{depth + 1}"], self._arrays[f"codes_{depth + 1}"]
            first, last = self._positions(starts, low, high)
            parent, position = spread(first, last)
            code, begin = codes.take(position), starts.take(position).astype(np.int64)
            final = np.cumsum(last - first) - 1
        else:
            parent, begin, code = self._runs(depth, low, high)
            final = np.searchsorted(parent, np.arange(len(nodes)), side="right") - 1
        node = begin if depth + 1 == self.levels else begin << SIZE_BITS | (following(begin, final, high) - begin)
        if live is not None:
            # a child ends where the next one begins: one look-up each
            before = live.before(begin)
            kept = np.flatnonzero(before != following(before, final, live.before(high)))
            if len(kept) < len(node):
                parent, code, node = parent.take(kept), code.take(kept), node.take(kept)
        return Children(parent=parent, code=code.astype(np.int64, copy=False), node=node)

    def find(self, codes: Codes) -> Ints:
        """Return the node of each prefix [n, d], or -1 where no S-ID begins with it; int64[n]."""
        depth = codes.shape[1]
        if depth > self.levels:
            return np.full(len(codes), -1)
        low, high = self._descend(codes)
        if depth == 0:
            return np.zeros(len(codes), np.int64)
        return np.where(low < high, low if depth == self.levels else low << SIZE_BITS | (high - low), -1)

    def contains(self, codes: Codes) -> NDArray[np.bool_]:
        """Return whether each row [n, L] is a whole S-ID of the trie, bool[n]."""
        if codes.shape[1] != self.levels:
            raise InvalidInput(f"whole S-IDs have {self.levels} codes here, these have {codes.shape[1]}")
        return self.find(codes) >= 0

    def _descend(self, codes: Codes) -> tuple[Ints, Ints]:
        """Return the leaves that begin with each prefix, [low, high); low is where they would be if there are none."""
        low: Ints = np.zeros(len(codes), np.int64)
        high: Ints = np.full(len(codes), self.leaves)
        for level in range(codes.shape[1]):
            wanted = codes[:, level].astype(np.int64)
            if level < self.shallow:
                starts, stored = self._arrays[f"starts_{level + 1}"], self._arrays[f"codes_{level + 1}"]
                first, last = self._positions(starts, low, high)
                found = bisect(partial(_take, stored), first, last, wanted)
                here = np.flatnonzero(found < last)
                here = here[stored[found[here]] == wanted[here]]
                low = starts[found].astype(np.int64)
                high = low.copy()
                high[here] = starts[found[here] + 1]
            else:
                code_at = self._codes_at(level)
                low, high = bisect(code_at, low, high, wanted), bisect(code_at, low, high, wanted + 1)
        return low, high

    def _runs(self, depth: int, low: Ints, high: Ints) -> tuple[Ints, Ints, Ints]:
        """Return where a child begins among the leaves of each node: parent, first leaf, code; read from the leaves."""
        code_at = self._codes_at(depth)
        parent = np.arange(len(low))
        while (large := np.flatnonzero(high - low > SCAN)).size:
            copies = np.ones(len(low), np.int64)
            copies[large] = 2
            parent, low, high = np.repeat(parent, copies), np.repeat(low, copies), np.repeat(high, copies)
            half = large + np.arange(len(large))
            begin, end = low[half], high[half]
            # halves of what has several codes; of what has one, the first leaf, which says all, and nothing
            mixed, middle = code_at(begin) != code_at(end - 1), (begin + end) >> 1
            high[half], low[half + 1] = np.where(mixed, middle, begin + 1), np.where(mixed, middle, end)
        part, leaf = spread(low, high)
        parent, code = parent.take(part), code_at(leaf)
        first = np.ones(len(leaf), np.bool_)
        first[1:] = (code[1:] != code[:-1]) | (parent[1:] != parent[:-1])
        at = np.flatnonzero(first)
        return parent[at], leaf[at], code[at]

    @staticmethod
    def _positions(starts: NDArray[np.uint32], low: Ints, high: Ints) -> tuple[Ints, Ints]:
        # needles of the array's own type: otherwise numpy would convert the whole array
        first = np.searchsorted(starts, low.astype(np.uint32)).astype(np.int64)
        return first, np.searchsorted(starts, high.astype(np.uint32)).astype(np.int64)

    def _codes_at(self, level: int) -> Callable[[Ints], Ints]:
        name, shift, mask = word_field(self.bits, self.shallow, level)
        word = self._arrays[name]
        return partial(_unpack, word, word.dtype.type(shift), word.dtype.type(mask))


def _take(stored: NDArray[Any], at: Ints) -> Ints:
    return stored[at].astype(np.int64)


def _unpack(word: NDArray[Any], shift: Any, mask: Any, leaf: Ints) -> Ints:
    codes: Ints = ((word.take(leaf) >> shift) & mask).astype(np.int64)
    return codes
