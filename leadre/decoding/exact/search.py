"""Exact constrained beam search in arrays: all beams of all prompts at once.

LEADRE §3.4, Algorithm 2. The trie's children come first and are scored; never a top-k that is masked afterwards, which
loses beams when few ads are live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Score
from leadre.decoding.steps import Step
from leadre.errors import NoValidContinuation
from leadre.indexing.trie import Children, LiveMask, Trie

Int64s = NDArray[np.int64]

_LOOK_AHEAD = 1.25
"""Children a beam up to which it pays to feed all of them beside the beams, before it is known which are kept."""


class Reading(Protocol):
    """Prompts that the LLM has read, and the beams that grow from them. It lives for one pass."""

    def first(self) -> NDArray[np.float32]:
        """Return log P(code) of level 0: [prompts, codes of level 0]."""
        ...

    def next(self, level: int, parents: Int64s, codes: Int64s) -> NDArray[np.float32]:
        """Feed one code a beam and return log P(code) of `level`: [beams, codes of `level`].

        Args:
            level: 1..M.
            parents: int64 [beams], for each beam the row of the previous answer it grew from; any order.
            codes: int64 [beams], the beam's code of level `level` - 1.
        """
        ...

    def next_two(
        self, level: int, parents: Int64s, codes: Int64s, child_parents: Int64s, child_codes: Int64s
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Feed one code a beam and at once one more for each of its children: two levels for one pass of the LLM.

        Args:
            level: 1..M-1.
            parents: as in `next`.
            codes: as in `next`.
            child_parents: int64 [children], the beam that each child grows from.
            child_codes: int64 [children], the child's code of `level`.

        Returns:
            What `next(level, parents, codes)` returns, and what `next(level + 1, child_parents, child_codes)` would
            after it. The children are the rows that the next call's parents point to.
        """
        ...


class Decoder(Protocol):
    """Runs an LLM for the search. Its token blocks and its score are fixed when it is made."""

    @property
    def score(self) -> Score:
        """What its log-probabilities are normalised over; for "valid", not yet."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def longest_prompt(self) -> int | None:
        """Tokens a prompt may have so that an S-ID still fits; None without a limit."""
        ...

    def read(self, prompts: Sequence[Sequence[int]]) -> Reading:
        """Read non-empty prompts once each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The beams at one depth, grouped by request, best first.

    Args:
        request: int64 [beams], ascending.
        node: int64 [beams], trie nodes.
        score: float64 [beams], log-probabilities by the LLM.
        rank: float64 [beams], what the beams are ordered by: `score`, or the fused one.
        row: int64 [beams], where the beam's next log-probabilities stand; -1 for a beam with one live ad left below it
            whose probability is therefore 1 ("valid" only).
    """

    request: Int64s
    node: Int64s
    score: NDArray[np.float64]
    rank: NDArray[np.float64]
    row: Int64s


class Masses(Protocol):
    """What another source says of every node of the trie. See `leadre.decoding.exact.fusion`."""

    def fuse(self, score: NDArray[np.float64], *, request: Int64s, depth: int, nodes: Int64s) -> NDArray[np.float64]:
        """Return what beams are ordered by, float64 [beams].

        Args:
            score: float64 [beams], log-probabilities by the LLM.
            request: int64 [beams].
            depth: of the nodes.
            nodes: int64 [beams].
        """
        ...


def search(
    reading: Reading,
    trie: Trie,
    *,
    filters: Sequence[LiveMask | None],
    prompt_of: Int64s,
    beam_width: int,
    score: Score,
    masses: Masses | None = None,
    note: Callable[[Step], None] | None = None,
) -> Frontier:
    """Run Algorithm 2 for several requests at once.

    Args:
        reading: the prompts, read.
        trie: all ads.
        filters: for each request the ads that may be generated; at least one is live.
        prompt_of: int64 [requests], which of the prompts each request has.
        beam_width: B.
        score: the decoder's.
        masses: of the requests, where another source has a say in what the beams are.
        note: is told each level once it is decided.

    Returns:
        The chosen leaves.

    Raises:
        NoValidContinuation: a beam has no live child.
    """
    requests = len(filters)
    frontier = Frontier(
        request=np.arange(requests),
        node=np.zeros(requests, dtype=np.int64),
        score=np.zeros(requests, dtype=np.float64),
        rank=np.zeros(requests, dtype=np.float64),
        row=prompt_of,
    )
    log_probabilities = reading.first()
    fed_ahead: NDArray[np.float32] | None = None  # log-probabilities behind `children`, where they were fed already
    children = _children(trie, 0, frontier, filters=filters)
    for depth in range(trie.levels):
        parent = children.parent
        total = frontier.score[parent] + _gained(log_probabilities, frontier, children, score=score)
        request = frontier.request[parent]
        rank = total if masses is None else masses.fuse(total, request=request, depth=depth + 1, nodes=children.node)
        best = segmented_top(rank, request, segments=requests, width=beam_width)
        if note is not None:
            note(Step(parent=parent, code=children.code, node=children.node, score=total, rank=rank, kept=best))
        parent, codes = parent[best], children.code[best]
        rows = frontier.row[parent]
        frontier = Frontier(
            request=frontier.request[parent],
            node=children.node[best],
            score=total[best],
            rank=rank[best],
            row=np.arange(len(best)),
        )
        if depth + 1 == trie.levels:  # nothing follows the last code: it is never fed
            break
        children = _children(trie, depth + 1, frontier, filters=filters)
        if fed_ahead is not None:
            frontier = _with_rows(frontier, best)
            log_probabilities, fed_ahead = fed_ahead, None
        elif score == "valid":
            open_ = (rows >= 0) & (_live_leaves(trie, depth + 1, frontier, filters=filters) > 1)
            frontier = _with_rows(frontier, np.where(open_, np.cumsum(open_) - 1, -1))
            if open_.any():
                log_probabilities = reading.next(depth + 1, rows[open_], codes[open_])
        elif depth + 2 < trie.levels and len(children.node) <= _LOOK_AHEAD * len(best):
            log_probabilities, fed_ahead = reading.next_two(depth + 1, rows, codes, children.parent, children.code)
        else:
            log_probabilities = reading.next(depth + 1, rows, codes)
    return frontier


def _gained(
    log_probabilities: NDArray[np.float32], frontier: Frontier, children: Children, *, score: Score
) -> NDArray[np.float64]:
    """Return what each child adds to its beam's log-probability, float64 [children]."""
    rows, codes = frontier.row[children.parent], children.code
    if score == "valid":
        codes = np.where(rows >= 0, codes, 0)  # a certain beam reads anything: its only child gains 0 below
    gained = log_probabilities[rows, codes].astype(np.float64)
    if score == "valid":
        starts = np.flatnonzero(np.diff(children.parent, prepend=-1))
        sizes = np.diff(starts, append=len(gained))
        highest = np.maximum.reduceat(gained, starts)
        log_sums = highest + np.log(np.add.reduceat(np.exp(gained - np.repeat(highest, sizes)), starts))
        gained -= np.repeat(log_sums, sizes)
        gained[np.repeat(sizes == 1, sizes)] = 0.0
    return gained


def _with_rows(frontier: Frontier, rows: Int64s) -> Frontier:
    return replace(frontier, row=rows)


def segmented_top(scores: NDArray[np.float64], segment: Int64s, *, segments: int, width: int) -> Int64s:
    """Select the `width` highest scores of every segment, exactly.

    Args:
        scores: [n], no NaN.
        segment: int64 [n], ascending, below `segments`.
        segments: how many there are.
        width: scores to keep in each.

    Returns:
        Indices into `scores`: grouped by segment, falling scores, equal scores in their given order (a stable sort's
        answer, at the price of a partition).
    """
    counts = np.bincount(segment, minlength=segments)
    longest = int(counts.max(initial=0))
    kept = np.arange(scores.size)
    if longest > width:
        dense = np.full((segments, longest), -np.inf)
        dense[segment, kept - (np.cumsum(counts) - counts)[segment]] = scores
        dense.partition(longest - width, axis=1)
        threshold = dense[:, longest - width][segment]
        above = np.flatnonzero(scores > threshold)
        tied = np.flatnonzero(scores == threshold)
        room = width - np.bincount(segment[above], minlength=segments)
        tied_counts = np.bincount(segment[tied], minlength=segments)
        rank = np.arange(tied.size) - (np.cumsum(tied_counts) - tied_counts)[segment[tied]]
        kept = np.sort(np.concatenate([above, tied[rank < room[segment[tied]]]]))
    return kept[np.lexsort((-scores[kept], segment[kept]))]


def _children(trie: Trie, depth: int, frontier: Frontier, *, filters: Sequence[LiveMask | None]) -> Children:
    """Return every live child, ascending by parent: one trie call for each distinct filter."""
    groups = _by_filter(frontier, filters)
    if len(groups) == 1:
        children = trie.children(depth, frontier.node, live=groups[0][1])
    else:
        found = [(rows, trie.children(depth, frontier.node[rows], live=mask)) for rows, mask in groups]
        parent = np.concatenate([rows[children.parent] for rows, children in found])
        order = np.argsort(parent, kind="stable")
        children = Children(
            parent=parent[order],
            code=np.concatenate([children.code for _, children in found])[order],
            node=np.concatenate([children.node for _, children in found])[order],
        )
    if np.any(np.bincount(children.parent, minlength=len(frontier.node)) == 0):
        raise NoValidContinuation(f"a beam at depth {depth} has no live child: rebuild the index's trie and the filter")
    return children


def _live_leaves(trie: Trie, depth: int, frontier: Frontier, *, filters: Sequence[LiveMask | None]) -> Int64s:
    """Return how many live ads stand below each beam, int64 [beams]."""
    low, high = trie.leaf_range(depth, frontier.node)
    leaves = high - low
    for rows, mask in _by_filter(frontier, filters):
        if mask is not None:
            leaves[rows] = mask.count(low[rows], high[rows])
    return leaves


def _by_filter(frontier: Frontier, filters: Sequence[LiveMask | None]) -> list[tuple[Int64s, LiveMask | None]]:
    """Return the beams of each distinct filter."""
    distinct = {id(mask): mask for mask in filters}
    if len(distinct) == 1:
        return [(np.arange(len(frontier.node)), filters[0])]
    keys = np.array([id(mask) for mask in filters])[frontier.request]
    groups = [(np.flatnonzero(keys == key), mask) for key, mask in distinct.items()]
    return [(rows, mask) for rows, mask in groups if rows.size]
