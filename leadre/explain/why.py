"""Why an ad is in a user's list, or is not: its path through the trie, where it left the beam, what forbids it.

LEADRE §3.4, Algorithm 2. The path's probabilities are the engine's own, of a search that keeps to the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.steps import Step, stepwise
from leadre.domain.retrieval import Beam
from leadre.domain.semantic_id import SemanticId, code_token
from leadre.domain.users import Context
from leadre.explain.ads import AdLabel, ad_labels, label_of
from leadre.explain.levels import Retrieved, retrieved_of
from leadre.explain.request import Request, request_of
from leadre.explain.shown import Reason, reasons
from leadre.indexing.trie import Trie
from leadre.retrieval.own_ads import own_rows
from leadre.retrieval.retriever import Retriever
from leadre.store.records.catalog import read_ads

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEIGHBOURS = 5
"""Retrieved ads shown beside the one that is asked about (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCode:
    """One code of the ad's S-ID.

    Args:
        depth: 1 to M + 1.
        token: the code's special token.
        probability: of the code, given the user's prompt and the codes before.
        log_probability: of the S-ID up to here.
        place: of the code among those that could follow, from 1.
        siblings: how many could follow, this one among them.
        likeliest: the token of the likeliest of them.
        likeliest_probability: its probability.
    """

    depth: int
    token: str
    probability: float
    log_probability: float
    place: int
    siblings: int
    likeliest: str
    likeliest_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Where the ad's S-ID left the beam.

    Args:
        depth: codes of the prefix that was not kept.
        place: of the prefix among the level's candidates, from 1; the beam kept the first `beams`.
        candidates: of the level.
        beams: kept.
        order: the prefix's score.
        cut: the score of the last beam that was kept.
    """

    depth: int
    place: int
    candidates: int
    beams: int
    order: float
    cut: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A retrieved ad, and how many leading codes it shares with the one asked about."""

    retrieved: Retrieved
    shared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why an ad is in a user's list or not.

    Args:
        ad: which.
        release: whose list.
        sid: the ad's; None when the index does not hold it. Then there is nothing below but `reasons`.
        may_be_shown: to the user, now.
        reasons: why not; empty when it may.
        rank: its place in the list, from 1; None: it is not in it. Of an ad that may not be shown, the place it would
            have.
        left: where it left the beam; None when it stayed to the end.
        path: its codes.
        log_probability: of the S-ID by the LLM.
        probability: its exponential.
        neighbours: the retrieved ads that share most leading codes with it, best first.
    """

    ad: AdLabel
    release: str
    sid: str | None
    may_be_shown: bool
    reasons: tuple[Reason, ...]
    rank: int | None = None
    left: Left | None = None
    path: tuple[PathCode, ...] = ()
    log_probability: float | None = None
    probability: float | None = None
    neighbours: tuple[Neighbour, ...] = ()


def why(
    retriever: Retriever,
    context: Context,
    ad_id: int,
    *,
    connection: Connection,
    now: datetime,
    beam_width: int | None = None,
) -> Why:
    """Explain one ad's place in a user's list, or its absence. Nothing is stored.

    Args:
        retriever: of a release; `LiveRetriever.current()` gives one.
        context: of the user, as of `now`.
        ad_id: the ad's 64-bit id.
        connection: to the catalog, in a transaction.
        now: the instant.
        beam_width: ads of the list; None: the retriever's.

    Raises:
        ConfigError: the engine does not tell its steps ("stub", "remote", "device").
        InvalidInput: as `Engine.generate`.
        Unavailable: PostgreSQL does not answer.
    """
    loaded, index, width = retriever.loaded, retriever.index, beam_width or retriever.beam_width
    engine = stepwise(loaded.engine)
    request = request_of(retriever, context, now=now)
    ad = next(iter(read_ads(connection, ad_ids=[ad_id])), None)
    label = label_of(ad) if ad else AdLabel(ad=ad_id, name="", category="")
    against = list(reasons(ad, context.profile, now=now)) if ad else [_NOT_IN_CATALOG]
    leaf = int(index.rows(np.array([ad_id], np.int64))[0])
    if leaf < 0:
        against.append(Reason(kind="not_in_index", text=f"index {index.version} does not hold it; `leadre index add`"))
        return Why(ad=label, release=loaded.release, sid=None, may_be_shown=False, reasons=tuple(against))
    against += _left_out(retriever, context, request, leaf=leaf, known=bool(against))
    mask = request.with_ad(leaf)
    (beams,) = loaded.engine.generate([request.prompt], beam_width=width, filters=[mask])
    steps = engine.steps(request.prompt, beam_width=width, mask=mask)
    path = _path(engine.steps(request.prompt, beam_width=width, mask=mask, towards=leaf))
    sid = index.sid_at(leaf)
    return Why(
        ad=label,
        release=loaded.release,
        sid=str(sid),
        may_be_shown=request.allows(leaf),
        reasons=tuple(against),
        rank=next((rank for rank, beam in enumerate(beams, start=1) if beam.ad_id == ad_id), None),
        left=_left(steps, index.trie, leaf),
        path=path,
        log_probability=path[-1].log_probability,
        probability=math.exp(path[-1].log_probability),
        neighbours=_neighbours(beams, sid, connection=connection),
    )


_NOT_IN_CATALOG = Reason(kind="not_in_catalog", text="the catalog does not hold the ad; `leadre import` loads ads")


def _left_out(retriever: Retriever, context: Context, request: Request, *, leaf: int, known: bool) -> list[Reason]:
    """Return what the catalog does not say: own ads that are left out, and changes that were not read yet."""
    loaded = retriever.loaded
    days = loaded.recipe.prompt.window_days
    if leaf in own_rows([context], seen=loaded.seen, index=loaded.index, window_days=days)[0]:
        return [Reason(kind="own", text=f"the user had it within {days} days, and this release leaves own ads out")]
    if known or request.allows(leaf):
        return []
    return [Reason(kind="lag", text="the catalog changed a moment ago, which is read every few seconds; ask again")]


def _path(steps: Sequence[Step]) -> tuple[PathCode, ...]:
    """Return the codes of a search that kept to one path."""
    path, before = [], 0.0
    for depth, step in enumerate(steps, start=1):
        chosen, likeliest = int(step.kept[0]), int(step.score.argmax())
        score = float(step.score[chosen])
        path.append(
            PathCode(
                depth=depth,
                token=code_token(depth - 1, int(step.code[chosen])),
                probability=math.exp(score - before),
                log_probability=score,
                place=1 + int((step.score > score).sum()),
                siblings=len(step.node),
                likeliest=code_token(depth - 1, int(step.code[likeliest])),
                likeliest_probability=math.exp(float(step.score[likeliest]) - before),
            )
        )
        before = score
    return tuple(path)


def _left(steps: Sequence[Step], trie: Trie, leaf: int) -> Left | None:
    for depth, step in enumerate(steps, start=1):
        here = int(np.flatnonzero(_above(trie, depth, step.node, leaf))[0])
        if here in step.kept:
            continue
        order = step.rank
        return Left(
            depth=depth,
            place=1 + int((order > order[here]).sum()),
            candidates=len(order),
            beams=len(step.kept),
            order=float(order[here]),
            cut=float(order[step.kept[-1]]),
        )
    return None


def _above(trie: Trie, depth: int, nodes: NDArray[np.int64], leaf: int) -> NDArray[np.bool_]:
    low, high = trie.leaf_range(depth, nodes)
    return (low <= leaf) & (leaf < high)


def _neighbours(beams: Sequence[Beam], sid: SemanticId, *, connection: Connection) -> tuple[Neighbour, ...]:
    listed = retrieved_of(beams, ad_labels(connection, [beam.ad_id for beam in beams]))
    others = [
        Neighbour(retrieved=one, shared=beam.sid.shared_prefix(sid))
        for one, beam in zip(listed, beams, strict=True)
        if beam.sid != sid
    ]
    return tuple(sorted(others, key=lambda other: (-other.shared, other.retrieved.rank))[:NEIGHBOURS])
