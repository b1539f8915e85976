"""The teacher's probability of every code that may follow each target's prefix: the signal's mass below each node.

Ours; LEADRE §3.3 (a node is a range of leaves). The signal is a distribution over ads, and what it says of a prefix is
its sum over the prefix's leaves. All leaves are scored for a block of positions at once, in pieces that stay in the
processor's cache, and are added up to the nodes of the first level; below that, only the leaves under a target's own
first code matter. leadre.training.teacher.reference is the same, one position at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted
from leadre.collaborative.leaves import EVEN_SHARE, nearest_known
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie.ranges import spread
from leadre.training.teacher.counts import Factors, factors
from leadre.training.teacher.positions import Positions
from leadre.training.teacher.rows import TeacherRows

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]
Progress = Callable[[str, int, int | None], None]

POSITIONS_AT_ONCE = 8_192
_LEAVES_AT_ONCE = 16_384
_ROWS_AT_ONCE = 256  # positions whose scores of a piece of the leaves are in memory
_SCORES_AT_ONCE = 1 << 22  # below the first level
_SMALLEST = np.finfo(np.float64).tiny


def write_teacher(
    folder: Path,
    positions: Positions,
    *,
    teacher: CrossFitted,
    index: AdIndex,
    temperature: float,
    progress: Progress | None = None,
) -> None:
    """Write the teacher's rows for all positions as an artifact, see `TeacherRows`.

    Args:
        folder: its place.
        positions: the targets.
        teacher: of each user the one that has not seen him, where there are folds.
        index: whose codes.
        temperature: of the distribution over ads.
        progress: called with positions done.
    """

    def fill(rows: TeacherRows) -> None:
        leaves = _Leaves(index, teacher.signal.items)
        fold_of = teacher.fold_of(positions.users)
        done = 0
        for fold in range(max(1, len(teacher.folds))):
            signal = teacher.of_fold(fold)
            for chosen, targets in _blocks(positions, np.flatnonzero(fold_of == fold)):
                histories = positions.histories.take(chosen)
                targets = targets[np.argsort(positions.leaf[targets], kind="stable")]
                moved = histories.offsets[:-1] - positions.histories.offsets[chosen]
                place = positions.place[targets] + moved[np.searchsorted(chosen, positions.row[targets])]
                block = _Block(
                    signal.sasrec.states_before(histories)[place],
                    factors(signal, histories, place, temperature=temperature, without_own=bool(teacher.folds)),
                    leaf=positions.leaf[targets],
                    signal=signal,
                    temperature=temperature,
                )
                leaves.write(block, rows, targets)
                done += len(targets)
                if progress is not None:
                    progress("teacher", done, len(positions))

    TeacherRows.write(folder, positions.leaf, index=index, fill=fill)


class _Block:
    """Some positions, in the order of their targets' leaves: what decides how likely they find each item."""

    def __init__(
        self,
        states: NDArray[np.float32],
        parts: Sequence[Factors],
        *,
        leaf: Int64s,
        signal: Collaborative,
        temperature: float,
    ) -> None:
        self.leaf, self.parts = leaf, parts
        self.table = signal.sasrec.network.items.weight.detach()
        self.states = torch.from_numpy(states * ((1.0 - signal.share) / temperature)).to(self.table)
        popular = (signal.share / temperature) * np.log(signal.popular)
        self.popular = torch.from_numpy(popular).to(self.table)

    def weights(self, rows: slice, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how likely items are before the factors, float32[n, items], and each row's logarithm of its scale."""
        scores = torch.addmm(self.popular[items], self.states[rows], self.table[items].T)
        highest = scores.amax(dim=1, keepdim=True)
        return scores.sub_(highest).exp_(), highest


class _Leaves:
    """The leaves of an index, as the ads of a signal stand for them."""

    def __init__(self, index: AdIndex, items: Int64s) -> None:
        self._trie, self._leaves = index.trie, len(index)
        self._source = nearest_known(index, items)
        self._by_item = np.argsort(self._source, kind="stable")
        self._of_item = np.searchsorted(self._source[self._by_item], np.arange(len(items) + 1))
        self._one_each = bool((np.diff(self._of_item) == 1).all())
        nodes = self._trie.children(0, np.zeros(1, np.int64)).node
        self._low, self._high = self._trie.leaf_range(1, nodes)

    def write(self, block: _Block, rows: TeacherRows, targets: Int64s) -> None:
        """Write the logarithms of a block.

        Args:
            block: n positions.
            rows: gets them.
            targets: int64[n], their numbers among all targets.
        """
        levels = rows.levels
        parts = [self._spread(part) for part in block.parts]
        logs = self._first_level(block, parts)
        total = np.logaddexp.reduce(logs, axis=1)
        total[np.isneginf(total)] = 0.0  # of a user who has had all ads
        even = EVEN_SHARE / self._leaves
        masses = (1.0 - EVEN_SHARE) * np.exp(logs - total[:, None]) + even * (self._high - self._low)
        first = rows.starts[targets * levels]
        rows.logs[first[:, None] + np.arange(masses.shape[1])] = np.log(masses / masses.sum(axis=1, keepdims=True))
        if levels == 1:
            return
        paths = self._trie.codes_of(block.leaf)
        below = [self._trie.children(depth, self._trie.find(paths[:, :depth])) for depth in range(1, levels)]
        ranges = [self._trie.leaf_range(depth + 1, found.node) for depth, found in enumerate(below, 1)]
        found_masses = [np.empty(len(found.node)) for found in below]
        for part, low, sums in self._below_first(block, parts, total, even):
            for found, (begin, end), mass in zip(below, ranges, found_masses, strict=True):
                here = slice(*np.searchsorted(found.parent, [part.start, part.stop]))
                row = found.parent[here] - part.start
                mass[here] = sums[row, end[here] - low] - sums[row, begin[here] - low]
        for depth, (found, mass) in enumerate(zip(below, found_masses, strict=True), 1):
            starts = np.searchsorted(found.parent, np.arange(len(targets)))
            mass /= np.add.reduceat(mass, starts)[found.parent]
            first = rows.starts[targets * levels + depth]
            rows.logs[np.arange(len(mass)) + (first - starts)[found.parent]] = np.log(mass.clip(min=_SMALLEST))

    def _first_level(self, block: _Block, parts: Sequence[_Part]) -> Float64s:
        """Return logarithms of the sums below each node of the first level, float64[n, nodes], to one scale a row."""
        logs = np.empty((len(block.leaf), len(self._low)))
        for nodes in _pieces(self._low, self._high):
            low, high = int(self._low[nodes.start]), int(self._high[nodes.stop - 1])
            items = torch.from_numpy(self._source[low:high]).to(block.table.device)
            inside = [part.among(low, high) for part in parts]
            for rows in _slices(len(block.leaf), _ROWS_AT_ONCE):
                weights, scale = block.weights(rows, items)
                for part in inside:
                    part.apply(weights, rows, low)
                with np.errstate(divide="ignore"):  # ads that may not come again
                    logs[rows, nodes] = np.log(_sums(weights, self._low[nodes] - low)) + scale.cpu().numpy()
        return logs

    def _below_first(
        self, block: _Block, parts: Sequence[_Part], total: Float64s, even: float
    ) -> Iterator[tuple[slice, int, Float64s]]:
        """Give rows under one node of the first level, its first leaf, and their probabilities before each leaf."""
        node = np.searchsorted(self._low, block.leaf, side="right") - 1
        parts = [part.under(self._low[node], self._high[node]) for part in parts]
        begins = np.flatnonzero(np.append(True, node[1:] != node[:-1]))
        for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(node)], strict=True):
            low, high = int(self._low[node[begin]]), int(self._high[node[begin]])
            items = torch.from_numpy(self._source[low:high]).to(block.table.device)
            for rows in _slices(end - begin, max(1, _SCORES_AT_ONCE // (high - low)), first=begin):
                weights, scale = block.weights(rows, items)
                for part in parts:
                    part.apply(weights, rows, low)
                sums = np.zeros((rows.stop - rows.start, high - low + 1))
                np.cumsum(weights.cpu().numpy(), axis=1, dtype=np.float64, out=sums[:, 1:])
                sums *= (1.0 - EVEN_SHARE) * np.exp(scale.cpu().numpy() - total[rows, None])
                sums += even * np.arange(high - low + 1)
                yield rows, low, sums

    def _spread(self, part: Factors) -> _Part:
        """Return factors on items as factors on all the leaves that they stand for."""
        if self._one_each:
            return _Part(part.position, self._by_item[part.item], part.factor)
        which, at = spread(self._of_item[part.item], self._of_item[part.item + 1])
        return _Part(part.position[which], self._by_item[at], part.factor[which])


class _Part:
    """Factors on leaves, ascending by row."""

    def __init__(self, row: Int64s, leaf: Int64s, factor: NDArray[np.float32]) -> None:
        self.row, self.leaf, self.factor = row, leaf, factor

    def _take(self, kept: NDArray[np.bool_]) -> _Part:
        return self if kept.all() else _Part(self.row[kept], self.leaf[kept], self.factor[kept])

    def among(self, low: int, high: int) -> _Part:
        """Return those on leaves [low, high)."""
        return self._take((self.leaf >= low) & (self.leaf < high))

    def under(self, low: Int64s, high: Int64s) -> _Part:
        """Return those on each row's own leaves [low[row], high[row])."""
        return self._take((self.leaf >= low[self.row]) & (self.leaf < high[self.row]))

    def apply(self, weights: torch.Tensor, rows: slice, first_leaf: int) -> None:
        """Multiply those of some rows into their weights, whose columns are the leaves from the first one on."""
        here = slice(*np.searchsorted(self.row, [rows.start, rows.stop]))
        at = torch.from_numpy(self.row[here] - rows.start), torch.from_numpy(self.leaf[here] - first_leaf)
        at = at[0].to(weights.device), at[1].to(weights.device)
        weights[at] = weights[at] * torch.from_numpy(self.factor[here]).to(weights)


def _sums(weights: torch.Tensor, starts: Int64s) -> NDArray[np.float32]:
    """Return sums over consecutive columns that begin at `starts`, float32[n, sums]."""
    if weights.device.type == "cpu":
        sums: NDArray[np.float32] = np.add.reduceat(weights.numpy(), starts, axis=1)
        return sums
    number = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, weights.shape[1])))
    added = weights.new_zeros(len(weights), len(starts))
    return added.index_add_(1, torch.from_numpy(number).to(weights.device), weights).cpu().numpy()


def _pieces(low: Int64s, high: Int64s) -> Iterator[slice]:
    """Give nodes that follow each other, about `_LEAVES_AT_ONCE` leaves at a time, a large one by itself."""
    first = 0
    for node in range(1, len(low) + 1):
        if node == len(low) or high[node] - low[first] > _LEAVES_AT_ONCE:
            yield slice(first, node)
            first = node


def _slices(count: int, size: int, *, first: int = 0) -> Iterator[slice]:
    for start in range(first, first + count, size):
        yield slice(start, min(start + size, first + count))


def _blocks(positions: Positions, users: Int64s) -> Iterator[tuple[Int64s, Int64s]]:
    """Give users and the numbers of all their targets, about `POSITIONS_AT_ONCE` of them at a time."""
    ends = np.searchsorted(positions.place, positions.histories.offsets)
    users = users[np.diff(ends)[users] > 0]
    counts = np.diff(ends)[users]
    block = (np.cumsum(counts) - counts) // POSITIONS_AT_ONCE
    for chosen in np.split(users, np.flatnonzero(np.diff(block)) + 1):
        if len(chosen):
            yield chosen, spread(ends[chosen], ends[chosen + 1])[1]
