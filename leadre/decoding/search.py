"""Exact constrained beam search in arrays: all beams of all prompts at once.

LEADRE §3.4, Algorithm 2. The trie's children come first and are scored; never a top-k that is masked afterwards, which
loses beams when few ads are live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import check_request, check_revision
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId
from leadre.errors import NoValidContinuation
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask, Trie

Int64s = NDArray[np.int64]


class Reading(Protocol):
    """Prompts that the LLM has read, and the beams that grow from them. It lives for one pass."""

    def first(self) -> NDArray[np.float32]:
        """Return log P(code) of level 0: [prompts, codes of level 0]."""
        ...

    def next(self, level: int, parents: Int64s, codes: Int64s) -> NDArray[np.float32]:
        """Feed one code a beam and return log P(code) of `level`: [beams, codes of `level`].

        Args:
            level: 1..M.
            parents: int64 [beams], for each beam the row of the previous answer it grew from, ascending by prompt.
            codes: int64 [beams], the beam's code of level `level` - 1.
        """
        ...


class Decoder(Protocol):
    """Runs an LLM for the search. Its token blocks and its score are fixed when it is made."""

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
    """The beams at one depth, grouped by prompt, best first.

    Args:
        prompt: int64 [beams], ascending.
        node: int64 [beams], trie nodes.
        score: float64 [beams], log-probabilities.
    """

    prompt: Int64s
    node: Int64s
    score: NDArray[np.float64]


class BeamSearchEngine:
    """The engine of a decoder and an index.

    Args:
        decoder: runs the LLM.
        index: the ads.
        tokens_per_pass: prompts are decoded together, shortest first, up to this many tokens, a beam counted as four:
            a bound on memory, and beyond some thousands no longer a gain in speed.
    """

    def __init__(self, decoder: Decoder, *, index: AdIndex, tokens_per_pass: int = 8192) -> None:
        self._decoder, self._index, self._tokens_per_pass = decoder, index, tokens_per_pass

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        return self._index.version

    def over(self, index: AdIndex) -> BeamSearchEngine:
        """Return this engine over another revision of its index. See `leadre.decoding.engine.Engine.over`.

        Raises:
            ReleaseMismatch: `index` is another version.
        """
        check_revision(index, index_version=self.index_version)
        return BeamSearchEngine(self._decoder, index=index, tokens_per_pass=self._tokens_per_pass)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first. See `leadre.decoding.engine.Engine.generate`.

        Raises:
            InvalidInput: a request outside the contract.
            BrokenModel: the model gives NaN.
        """
        masks = check_request(
            prompts,
            beam_width=beam_width,
            filters=filters,
            vocabulary_size=self._decoder.vocabulary_size,
            longest_prompt=self._decoder.longest_prompt,
            leaves=self._index.trie.leaves,
        )
        answer: list[list[Beam]] = [[] for _ in prompts]
        trie = self._index.trie
        alive = [row for row, mask in enumerate(masks) if trie.leaves and (mask is None or mask.live_leaves)]
        costs = [max(len(prompt), 4 * beam_width) for prompt in prompts]
        for rows in _passes(alive, costs, limit=self._tokens_per_pass):
            found = search(
                self._decoder.read([prompts[row] for row in rows]),
                trie,
                filters=[masks[row] for row in rows],
                beam_width=beam_width,
            )
            for row, beams in zip(rows, self._beams(found, prompts=len(rows)), strict=True):
                answer[row] = beams
        return answer

    def _beams(self, found: Frontier, *, prompts: int) -> list[list[Beam]]:
        """Name the ads of leaves, grouped by prompt."""
        codes = self._index.codes[found.node].tolist()
        ad_ids = self._index.ad_ids[found.node].tolist()
        beams = [
            Beam(sid=SemanticId(tuple(sid)), ad_id=ad_id, log_probability=score)
            for sid, ad_id, score in zip(codes, ad_ids, found.score.tolist(), strict=True)
        ]
        ends = np.searchsorted(found.prompt, np.arange(prompts + 1)).tolist()
        return [beams[low:high] for low, high in pairwise(ends)]


def search(reading: Reading, trie: Trie, *, filters: Sequence[LiveMask | None], beam_width: int) -> Frontier:
    """Run Algorithm 2 for all prompts of a reading.

    Args:
        reading: the prompts, read.
        trie: all ads.
        filters: for each prompt the ads that may be generated; at least one is live.
        beam_width: B.

    Returns:
        The chosen leaves.

    Raises:
        NoValidContinuation: a beam has no live child.
    """
    prompts = len(filters)
    frontier = Frontier(
        prompt=np.arange(prompts), node=np.zeros(prompts, dtype=np.int64), score=np.zeros(prompts, dtype=np.float64)
    )
    log_probabilities = reading.first()
    for depth in range(trie.levels):
        parent, code, node = _children(trie, depth, frontier, filters=filters)
        score = frontier.score[parent] + log_probabilities[parent, code]
        best = segmented_top(score, frontier.prompt[parent], segments=prompts, width=beam_width)
        parent, code = parent[best], code[best]
        frontier = Frontier(prompt=frontier.prompt[parent], node=node[best], score=score[best])
        if depth + 1 < trie.levels:  # nothing follows the last code: it is never fed
            log_probabilities = reading.next(depth + 1, parent, code)
    return frontier


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


def _children(
    trie: Trie, depth: int, frontier: Frontier, *, filters: Sequence[LiveMask | None]
) -> tuple[Int64s, Int64s, Int64s]:
    """Return (parent, code, node) of every live child, ascending by parent: one trie call for each distinct filter."""
    distinct = {id(mask): mask for mask in filters}
    if len(distinct) == 1:
        children = trie.children(depth, frontier.node, live=filters[0])
        parent, code, node = children.parent, children.code, children.node
    else:
        keys = np.array([id(mask) for mask in filters])[frontier.prompt]
        parents, codes, nodes = [], [], []
        for key, mask in distinct.items():
            rows = np.flatnonzero(keys == key)
            children = trie.children(depth, frontier.node[rows], live=mask)
            parents.append(rows[children.parent])
            codes.append(children.code)
            nodes.append(children.node)
        parent = np.concatenate(parents)
        order = np.argsort(parent, kind="stable")
        parent, code, node = parent[order], np.concatenate(codes)[order], np.concatenate(nodes)[order]
    if np.any(np.bincount(parent, minlength=frontier.node.size) == 0):
        raise NoValidContinuation(f"a beam at depth {depth} has no live child: rebuild the index's trie and the filter")
    return parent, code, node


def _passes(rows: Sequence[int], costs: Sequence[int], *, limit: int) -> list[list[int]]:
    """Group rows of similar cost, so that each group, padded to its dearest row, stays within the limit."""
    passes: list[list[int]] = []
    for row in sorted(rows, key=lambda row: costs[row]):
        if passes and (len(passes[-1]) + 1) * costs[row] <= limit:
            passes[-1].append(row)
        else:
            passes.append([row])
    return passes
