"""The trie on a device, in steps of fixed shape: every code of every beam is looked up and scored, then the best kept.

LEADRE §3.3, §3.4. How many children beams have depends on the data; how many codes a level has does not. So a step
gives [beams, codes] scores, -inf where no live child is: exact, and a CUDA graph can hold it. A node is its leaf range,
`low << 31 | (high - low)`, at every depth; 0 is a node without leaves. `score_children` is the reference of the Triton
kernel that does the same in one pass on a GPU (leadre.decoding.device.triton_kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leadre.decoding.engine import Score
from leadre.indexing.trie import LiveMask, Trie
from leadre.indexing.trie.arrays import word_field
from leadre.indexing.trie.trie import SIZE_BITS

_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelArrays:
    """Where the codes of one level are: ascending within a node.

    Args:
        packed: integers [positions]; a position's code is `packed >> shift & mask`.
        shift: in bits.
        mask: the code's bits, after the shift.
        starts: int32 [positions + 1], each position's first leaf; None where a position is a leaf.
        single: a position is a whole child.
    """

    packed: Tensor
    shift: int
    mask: int
    starts: Tensor | None
    single: bool

    def code_at(self, position: Tensor) -> Tensor:
        """Return the codes at positions, int64 alike."""
        return (self.packed[position].long() >> self.shift) & self.mask

    def positions(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions [begin, end) of each node's children, int64 alike."""
        low, size = node >> SIZE_BITS, node & ((1 << SIZE_BITS) - 1)
        if self.starts is None:
            return low, low + size
        begin, end = (torch.searchsorted(self.starts, leaf.int()) for leaf in (low, low + size))
        return begin, end

    def leaf(self, position: Tensor) -> Tensor:
        """Return the first leaf at each position, int64 alike."""
        return position if self.starts is None else self.starts[position].long()


class DeviceTrie:
    """A trie's arrays on a device.

    Args:
        trie: the trie; not empty.
        device: where it goes.
    """

    def __init__(self, trie: Trie, *, device: torch.device) -> None:
        self.leaves, self.root = trie.leaves, trie.leaves
        arrays = {name: _tensor(array, device) for name, array in trie.arrays().items() if name[0] in "scw"}
        self.levels: list[LevelArrays] = []
        for level in range(trie.levels):
            name, shift, mask, starts = f"codes_{level + 1}", 0, (1 << trie.bits[level]) - 1, None
            if level < trie.shallow:
                starts = arrays[f"starts_{level + 1}"]
            else:
                name, shift, mask = word_field(trie.bits, trie.shallow, level)
            single = starts is not None or level + 1 == trie.levels
            self.levels.append(LevelArrays(packed=arrays[name], shift=shift, mask=mask, starts=starts, single=single))


class MaskStack:
    """Filters on a device, at addresses that do not change: one slot a distinct mask; what is there is not sent again.

    Args:
        leaves: of the index.
        slots: most masks of one pass.
        device: where they are.
    """

    def __init__(self, leaves: int, *, slots: int, device: torch.device) -> None:
        self.words = torch.zeros(slots, leaves // 64 + 1, dtype=torch.int64, device=device)
        self.ranks = torch.zeros(slots, leaves // 64 + 1, dtype=torch.int32, device=device)
        self._held: list[LiveMask | None] = [None] * slots

    def place(self, masks: Sequence[LiveMask | None]) -> list[int]:
        """Put masks into slots and return each one's slot, -1 for none."""
        wanted = {id(mask): mask for mask in masks if mask is not None}
        slot_of = {id(held): slot for slot, held in enumerate(self._held) if id(held) in wanted}
        free = iter(slot for slot in range(len(self._held)) if slot not in set(slot_of.values()))
        for key, mask in wanted.items():
            if key not in slot_of:
                slot_of[key] = slot = next(free)
                self._held[slot] = mask
                self.words[slot].copy_(_tensor(mask.words, "cpu"))
                self.ranks[slot].copy_(_tensor(mask.ranks, "cpu"))
        return [-1 if mask is None else slot_of[id(mask)] for mask in masks]

    def count(self, slot: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return how many live leaves each range [low, high) holds under the mask in each slot, int64 alike."""
        return torch.where(slot < 0, high - low, self._before(slot, high) - self._before(slot, low))

    def _before(self, slot: Tensor, leaf: Tensor) -> Tensor:
        slot, word = slot.clamp(min=0), leaf >> 6
        below = (torch.ones_like(leaf) << (leaf & 63)) - 1
        return self.ranks[slot, word].long() + _bit_count(self.words[slot, word] & below)


ScoreChildren = Callable[..., tuple[Tensor, Tensor]]


def score_children(
    level: LevelArrays,
    logits: Tensor,
    *,
    beam_score: Tensor,
    node: Tensor,
    slot: Tensor,
    masks: MaskStack,
    score: Score,
) -> tuple[Tensor, Tensor]:
    """Score every code of every beam.

    Args:
        level: of the codes.
        logits: float32 [beams, codes], of the level's codes; under "raw", log-probabilities already.
        beam_score: float64 [beams], log-probabilities so far.
        node: int64 [beams].
        slot: int64 [beams], the filter's slot in `masks`; -1 without one.
        masks: the filters.
        score: what to normalise over.

    Returns:
        The children's log-probabilities, float64 [beams, codes], -inf where no live ad is below, and the children,
        int64 alike, 0 there.
    """
    codes = torch.arange(logits.shape[1], device=logits.device)
    begin, end = (bound[:, None].expand(logits.shape) for bound in level.positions(node))
    position = _lower_bound(level, begin, end, codes)
    here = position < end
    here &= level.code_at(torch.where(here, position, 0)) == codes
    position = torch.where(here, position, 0)
    following = position + 1 if level.single else _lower_bound(level, position, end, codes + 1)
    low, high = level.leaf(position), level.leaf(torch.where(here, following, 0))
    alive = here & (masks.count(slot[:, None].expand(logits.shape), low, torch.maximum(high, low)) > 0)
    if score == "level":
        logits = torch.log_softmax(logits, dim=-1)
    elif score == "valid":
        live = logits.masked_fill(~alive, -torch.inf)
        highest = live.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(live.dtype).min)  # no live child: not -inf
        live = live - highest
        logits = live - live.exp().sum(dim=-1, keepdim=True).log()
    candidates = (beam_score[:, None] + logits.double()).masked_fill(~alive, -torch.inf)
    return candidates, torch.where(alive, low << SIZE_BITS | (high - low), 0)


def stable_top(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Select the highest scores of each row, exactly: equal scores in their given order.

    torch's top-k takes any of equal scores. All above the last one are right; of those equal to it, the first count.

    Args:
        scores: float64 [rows, n].
        width: at most n.

    Returns:
        Falling scores [rows, width], and their int64 columns.
    """
    found, columns = scores.topk(width)
    last = found[:, -1:]
    above = (found > last).sum(dim=1, keepdim=True)
    backwards = torch.arange(scores.shape[1], 0, -1, dtype=torch.int32, device=scores.device)
    tied = torch.where(scores == last, backwards, 0).topk(width).indices
    rank = torch.arange(width, device=scores.device)
    columns = torch.where(rank < above, columns, tied.gather(1, (rank - above).clamp(min=0)))
    columns = columns.sort(dim=1).values
    kept, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return kept, columns.gather(1, order)


def _lower_bound(level: LevelArrays, low: Tensor, high: Tensor, wanted: Tensor) -> Tensor:
    """Return in each range of positions [low, high) the first whose code is not below the wanted one."""
    for _ in range(len(level.packed).bit_length()):
        middle = (low + high) >> 1
        right = (low < high) & (level.code_at(middle.clamp(max=len(level.packed) - 1)) < wanted)
        low, high = torch.where(right, middle + 1, low), torch.where(right | (low >= high), high, middle)
    return low


def _bit_count(words: Tensor) -> Tensor:
    pairs = words - ((words >> 1) & 0x5555555555555555)
    nibbles = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    octets = (nibbles + (nibbles >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (octets * 0x0101010101010101 >> 56) & 0x7F


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    signed = np.require(array, requirements="W").view(_SIGNED[array.dtype.itemsize])  # torch wants writable memory
    return torch.from_numpy(signed).to(device)
