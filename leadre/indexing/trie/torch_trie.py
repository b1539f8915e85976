"""The array trie in torch, on the CPU or a GPU: the same arrays, the same children.

LEADRE §3.3. torch does little with unsigned integers, so the arrays are viewed as signed ones of the same width and the
sign bit is masked off where it matters. On the CPU nothing is copied.

A GPU waits for the host only where memory of a size that it computes must be reserved: once for the number of children;
below the shallow depths for the number of leaves read and of children among them, and once a round of halving (none
where no node has more than `SCAN` leaves, 26 at most); under a live mask once more for how many children are left.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadre.errors import InvalidInput
from leadre.indexing.trie.arrays import word_field
from leadre.indexing.trie.live_mask import LiveMask
from leadre.indexing.trie.trie import SCAN, SIZE_BITS, Trie

_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


class TorchLiveMask:
    """A live mask on a device: which leaves may be generated, with counts per leaf range.

    Args:
        mask: the mask.
        device: where it goes.
    """

    def __init__(self, mask: LiveMask, *, device: torch.device | str) -> None:
        self.leaves = mask.leaves
        self._words, self._ranks = _tensor(mask.words, device), _tensor(mask.ranks, device)

    def before(self, leaf: Tensor) -> Tensor:
        """Return how many live leaves stand before each leaf (0 to N), int64[n]."""
        word = leaf >> 6
        below = (torch.ones_like(leaf) << (leaf & 63)) - 1  # bit 63 is the sign, and its mask all bits below it
        return self._ranks[word].long() + _bit_count(self._words[word] & below)

    def count(self, low: Tensor, high: Tensor) -> Tensor:
        """Return how many live leaves each range [low, high) holds, int64[n]."""
        return self.before(high) - self.before(low)


class TorchTrie:
    """A trie on a device.

    Args:
        trie: the trie.
        device: where it goes.
    """

    def __init__(self, trie: Trie, *, device: torch.device | str) -> None:
        self.leaves, self.levels, self.shallow, self.bits = trie.leaves, trie.levels, trie.shallow, trie.bits
        self.device = torch.device(device)
        kept = ("starts", "codes", "word")
        self._arrays = {name: _tensor(array, device) for name, array in trie.arrays().items() if name.startswith(kept)}

    def leaf_range(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the leaves below each node, [low, high): two int64[n]."""
        if depth == 0:
            return torch.zeros_like(nodes), torch.full_like(nodes, self.leaves)
        if depth == self.levels:
            return nodes, nodes + 1
        low = nodes >> SIZE_BITS
        return low, low + (nodes & ((1 << SIZE_BITS) - 1))

    def children(
        self, depth: int, nodes: Tensor, *, live: TorchLiveMask | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the children of nodes that all stand at one depth: (parent, code, node), int64[C] each.

        Equal to `leadre.indexing.trie.Trie.children`, whose nodes these are.

        Args:
            depth: 0 (the root) to L - 1.
            nodes: int64[n], on the trie's device.
            live: leave out children below which no ad is live.

        Raises:
            InvalidInput: another depth, or a mask of another number of leaves.
        """
        if not 0 <= depth < self.levels:
            raise InvalidInput(f"nodes with children stand at depths 0 to {self.levels - 1}, not at {depth}")
        if live is not None and live.leaves != self.leaves:
            raise InvalidInput(f"the mask covers {live.leaves} leaves, the trie has {self.leaves}: different indexes")
        if not self.leaves:
            nothing = nodes.new_empty(0)
            return nothing, nothing, nothing
        low, high = self.leaf_range(depth, nodes)
        if depth < self.shallow:
            starts, codes = self._arrays[f"starts_{depth + 1}"], self._arrays[f"codes_{depth + 1}"]
            first, last = torch.searchsorted(starts, low.int()), torch.searchsorted(starts, high.int())
            parent, position = _spread(first, last)
            code = codes[position].long() & ((1 << self.bits[depth]) - 1)
            begin, final = starts[position].long(), torch.cumsum(last - first, 0) - 1
        else:
            parent, begin, code = self._runs(depth, low, high)
            final = torch.searchsorted(parent, torch.arange(len(nodes), device=parent.device), right=True) - 1
        node = begin if depth + 1 == self.levels else begin << SIZE_BITS | (_following(begin, final, high) - begin)
        if live is None:
            return parent, code, node
        before = live.before(begin)
        kept = torch.nonzero(before != _following(before, final, live.before(high))).flatten()
        return parent[kept], code[kept], node[kept]

    def _runs(self, depth: int, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where a child begins among the leaves of each node: parent, first leaf, code; read from the leaves."""
        parent = torch.arange(len(low), device=low.device)
        while len(large := torch.nonzero(high - low > SCAN).flatten()):
            copies = torch.ones_like(low).index_fill(0, large, 2)
            part = torch.repeat_interleave(copies, output_size=len(low) + len(large))
            parent, low, high = parent[part], low[part], high[part]
            half = large + torch.arange(len(large), device=large.device)
            begin, end = low[half], high[half]
            mixed = self._codes_at(depth, begin) != self._codes_at(depth, end - 1)
            middle = (begin + end) >> 1
            high[half] = torch.where(mixed, middle, begin + 1)
            low[half + 1] = torch.where(mixed, middle, end)
        part, leaf = _spread(low, high)
        parent, code = parent[part], self._codes_at(depth, leaf)
        first = torch.ones(len(leaf), dtype=torch.bool, device=leaf.device)
        first[1:] = (code[1:] != code[:-1]) | (parent[1:] != parent[:-1])
        at = torch.nonzero(first).flatten()
        return parent[at], leaf[at], code[at]

    def _codes_at(self, level: int, leaf: Tensor) -> Tensor:
        name, shift, mask = word_field(self.bits, self.shallow, level)
        return (self._arrays[name][leaf].long() >> shift) & mask  # the sign's copies are above the mask


def _tensor(array: NDArray[np.generic], device: torch.device | str) -> Tensor:
    signed = array.view(_SIGNED[array.dtype.itemsize])
    with warnings.catch_warnings():
        # a mapped file is read-only, which torch cannot express; nothing here writes
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(signed).to(device)


def _following(values: Tensor, final: Tensor, ends: Tensor) -> Tensor:
    """Return the value after each one; after the final one of each group, the group's end."""
    return torch.roll(values, -1).index_copy(0, final, ends)


def _spread(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return every position of every range [low, high), and which range it is from."""
    sizes = high - low
    parent = torch.repeat_interleave(sizes)
    return parent, torch.arange(len(parent), device=low.device) + (low - (torch.cumsum(sizes, 0) - sizes))[parent]


def _bit_count(words: Tensor) -> Tensor:
    """Return how many bits of each int64 are set; torch has no operation for it."""
    pairs = words - ((words >> 1) & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    octets = (nibbles + (nibbles >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (octets * 0x0101010101010101 >> 56) & 0x7F
