"""The beam search of one user's list, level by level: what survived, what fell just below the cut.

LEADRE §3.4, Algorithm 2. The levels are the engine's own (`leadre.decoding.steps`), not read off the final beams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.steps import Step, stepwise
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId, code_token
from leadre.domain.users import Context
from leadre.explain.ads import AdLabel, ad_labels
from leadre.explain.request import Request, request_of
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.retriever import Retriever

if TYPE_CHECKING:
    from sqlalchemy import Connection

BELOW_CUT = 5
"""Candidates shown of those that a level dropped (ours)."""
_EXAMPLES = 3
_CATEGORIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A prefix of S-IDs that the search looked at.

    Args:
        prefix: its codes.
        sid: the same, as the paper writes it.
        token: the special token of its last code.
        code_probability: of the last code, given the user's prompt and the codes before.
        log_probability: of the whole prefix, by the LLM.
        probability: its exponential.
        order: what the level was ordered by: `log_probability`, or the score fused with the collaborative signal.
        ads: of the index, below the prefix.
        live_ads: of them, those that may be shown to the user.
        categories: the commonest second-level categories below it, with their numbers of ads.
        examples: ads below it that may be shown, those of the list first; of a whole S-ID, its ad.
    """

    prefix: tuple[int, ...]
    sid: str
    token: str
    code_probability: float
    log_probability: float
    probability: float
    order: float
    ads: int
    live_ads: int
    categories: tuple[tuple[str, int], ...]
    examples: tuple[AdLabel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of the search.

    Args:
        depth: 1 to M + 1, codes of its prefixes.
        candidates: prefixes that were scored.
        kept: those that became beams, best first.
        pruned: the best of those that did not.
    """

    depth: int
    candidates: int
    kept: tuple[Node, ...]
    pruned: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """An ad of the list: `rank` from 1, and the list's own log-probability."""

    rank: int
    ad: AdLabel
    sid: str
    log_probability: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListExplanation:
    """How a user's list came about.

    Args:
        release: what made it.
        index_version: the index of its S-IDs.
        score: what the LLM's probabilities are normalised over: "raw", "level" or "valid".
        beam_width: B of Algorithm 2, as the list was asked for.
        prompt_tokens: the prompt's length.
        ads: of the index.
        live_ads: of them, those that may be shown to the user.
        fused: whether another source than the LLM had a say in the beam.
        reordered: whether the list is not the last level as it stands: the release's ranker or its share of variety
            ordered it anew.
        levels: of the search; none when no ad may be shown.
        retrieved: the list.
    """

    release: str
    index_version: str
    score: str
    beam_width: int
    prompt_tokens: int
    ads: int
    live_ads: int
    fused: bool
    reordered: bool
    levels: tuple[Level, ...]
    retrieved: tuple[Retrieved, ...]


def explain_list(
    retriever: Retriever,
    context: Context,
    *,
    connection: Connection,
    now: datetime,
    beam_width: int | None = None,
    below_cut: int = BELOW_CUT,
) -> ListExplanation:
    """Decode a user with the retriever's engine and note the search. Nothing is stored.

    Args:
        retriever: of a release; `LiveRetriever.current()` gives one.
        context: of the user, as of `now`.
        connection: to the catalog, in a transaction.
        now: the instant.
        beam_width: ads; None: the retriever's.
        below_cut: how many candidates to show of those that a level dropped.

    Raises:
        ConfigError: the engine does not tell its steps ("stub", "remote", "device").
        InvalidInput: as `Engine.generate`.
        Unavailable: PostgreSQL does not answer.
    """
    loaded, width = retriever.loaded, beam_width or retriever.beam_width
    request = request_of(retriever, context, now=now)
    engine, index = stepwise(loaded.engine), loaded.index
    steps = engine.steps(request.prompt, beam_width=width, mask=request.mask)
    (beams,) = loaded.engine.generate([request.prompt], beam_width=width, filters=[request.mask])
    first = index.rows(np.array([beam.ad_id for beam in beams], np.int64))
    shown = _shown(steps, below_cut=below_cut)
    examples = [
        _examples(index, request, depth, step.node[places], first=first)
        for depth, (step, places) in enumerate(zip(steps, shown, strict=True), start=1)
    ]
    wanted = {int(index.ad_ids[row]) for level in examples for rows in level for row in rows}
    labels = ad_labels(connection, wanted | {beam.ad_id for beam in beams})
    last = steps[-1].node[steps[-1].kept].tolist() if steps else []
    return ListExplanation(
        release=loaded.release,
        index_version=index.version,
        score=loaded.engine.score,
        beam_width=width,
        prompt_tokens=len(request.prompt),
        ads=len(index),
        live_ads=len(index) if request.mask is None else request.mask.live_leaves,
        fused=any(not np.array_equal(step.rank, step.score) for step in steps),
        reordered=first.tolist() != last,
        levels=_levels(steps, shown, examples, index=index, request=request, labels=labels),
        retrieved=retrieved_of(beams, labels),
    )


def retrieved_of(beams: Sequence[Beam], labels: Mapping[int, AdLabel]) -> tuple[Retrieved, ...]:
    """Return a list with its ads' labels."""
    return tuple(
        Retrieved(
            rank=rank,
            ad=labels[beam.ad_id],
            sid=str(beam.sid),
            log_probability=beam.log_probability,
            probability=math.exp(beam.log_probability),
        )
        for rank, beam in enumerate(beams, start=1)
    )


def _shown(steps: Sequence[Step], *, below_cut: int) -> list[NDArray[np.int64]]:
    """Return, for each level, the places of the beams and then of the best of the rest."""
    shown = []
    for step in steps:
        dropped = np.setdiff1d(np.arange(len(step.node)), step.kept)
        best = dropped[np.argsort(-step.rank[dropped], kind="stable")[:below_cut]]
        shown.append(np.concatenate([step.kept, best]))
    return shown


def _examples(
    index: AdIndex, request: Request, depth: int, nodes: NDArray[np.int64], *, first: NDArray[np.int64]
) -> list[list[int]]:
    """Return, for each node, some rows below it that may be shown, those of the list first."""
    found = []
    low, high = index.trie.leaf_range(depth, nodes)
    for begin, end in zip(low.tolist(), high.tolist(), strict=True):
        rows = first[(begin <= first) & (first < end)].tolist()[:_EXAMPLES]
        leaf = begin
        while len(rows) < _EXAMPLES and leaf < end:
            block = np.arange(leaf, min(end, leaf + 256))
            live = block[request.live(block, block + 1) > 0]
            rows += [row for row in live.tolist() if row not in rows][: _EXAMPLES - len(rows)]
            leaf += 256
        found.append(rows)
    return found


def _levels(
    steps: Sequence[Step],
    shown: Sequence[NDArray[np.int64]],
    examples: Sequence[Sequence[Sequence[int]]],
    *,
    index: AdIndex,
    request: Request,
    labels: Mapping[int, AdLabel],
) -> tuple[Level, ...]:
    levels = []
    before = np.zeros(1)  # log-probabilities of the beams of the level before
    for depth, (step, places, rows) in enumerate(zip(steps, shown, examples, strict=True), start=1):
        low, high = index.trie.leaf_range(depth, step.node[places])
        live = request.live(low, high).tolist()
        gained = (step.score - before[step.parent])[places]
        nodes = []
        for at, (place, begin, end) in enumerate(zip(places.tolist(), low.tolist(), high.tolist(), strict=True)):
            prefix = tuple(index.codes[begin, :depth].tolist())
            score = float(step.score[place])
            nodes.append(
                Node(
                    prefix=prefix,
                    sid=str(SemanticId(prefix)),
                    token=code_token(depth - 1, prefix[-1]),
                    code_probability=math.exp(gained[at]),
                    log_probability=score,
                    probability=math.exp(score),
                    order=float(step.rank[place]),
                    ads=end - begin,
                    live_ads=live[at],
                    categories=_categories(index, begin, end),
                    examples=tuple(labels[int(index.ad_ids[row])] for row in rows[at]),
                )
            )
        kept = len(step.kept)
        levels.append(
            Level(depth=depth, candidates=len(step.node), kept=tuple(nodes[:kept]), pruned=tuple(nodes[kept:]))
        )
        before = step.score[step.kept]
    return tuple(levels)


def _categories(index: AdIndex, low: int, high: int) -> tuple[tuple[str, int], ...]:
    numbers, counts = np.unique(index.second_categories[low:high], return_counts=True)
    commonest = np.argsort(-counts, kind="stable")[:_CATEGORIES]
    return tuple((index.category_names[numbers[at]], int(counts[at])) for at in commonest)
