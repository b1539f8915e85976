"""Offline evaluation: a release beside popularity and co-visitation, on the same users and targets.

LEADRE §5.1.1 (leave-one-out), §5.1.2 (HR@K, NDCG@K, over ads), §5.2.3 (diversity). Three views: "canonical" (the data's
own order), "untied" (users whose two held-out ads have different times), "shuffled" (ties in random order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine
from leadre.domain.behavior import Domain
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity
from leadre.evaluation.bootstrap import Interval, intervals, paired_differences
from leadre.evaluation.diversity import diversity, mean_ecpm
from leadre.evaluation.ranking import ABSENT, gains, hits, ranks_of
from leadre.evaluation.split import Split, leave_one_out, swap, swapped
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import render
from leadre.recipe import EvaluationRecipe, Recipe
from leadre.store import impressions
from leadre.store.catalog import read_ads
from leadre.store.database import connect, transaction
from leadre.store.events import DOMAINS, Sequences, read_sequences
from leadre.training.contexts import ContextBuilder, read_contexts
from leadre.training.preferences import ecpm_of_ads

Progress = Callable[[str, int, int | None], None]

LEADRE, POPULARITY, CO_VISITATION = "leadre", "popularity", "co_visitation"
LIST_CUTOFF = 8
"""Ads of a list that diversity and eCPM look at."""
_AD = DOMAINS.index(Domain.AD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What the top of the lists looks like (§5.2.3). `mean_ecpm` is in currency units per 1,000 impressions."""

    concentration: float
    abundance: float
    diversity: float
    mean_ecpm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of a release and of the baselines.

    Args:
        users: how many were evaluated.
        tied: how many of them have both held-out ads at one time.
        cutoffs: K, ascending.
        metrics: system, view and metric ("HR@10", "NDCG@10") to its mean and 95 % interval.
        differences: baseline and metric to the canonical view's "release minus baseline".
        lists: system to its lists' diversity and eCPM.
        simulated_ecpm: whether the eCPM rests on simulated values.
    """

    users: int
    tied: int
    cutoffs: tuple[int, ...]
    metrics: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    differences: Mapping[str, Mapping[str, Interval]]
    lists: Mapping[str, Lists]
    simulated_ecpm: bool

    def mean(self, metric: str, *, system: str = LEADRE, view: str = "canonical") -> float:
        """Return one figure's mean, for example `mean("HR@8")`."""
        return self.metrics[system][view][metric].mean

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, for metrics.json and the report."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def evaluate(
    *,
    database_url: str,
    index: AdIndex,
    engine: Engine,
    encoder: PromptEncoder,
    recipe: Recipe,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure an engine on every user's last ad, each prompt as of that ad's time and without it.

    Args:
        database_url: where the behaviors are.
        index: the engine's.
        engine: of the release.
        encoder: of the release; its recipe says what a prompt holds.
        recipe: its `evaluation` section, and the beam width of `decoding` (widened to the largest cutoff).
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        ReleaseMismatch: the engine generates S-IDs of another index.
        InvalidInput: no user has enough ad behaviors to be evaluated.
        Unavailable: PostgreSQL does not answer.
    """
    if engine.index_version != index.version:
        raise ReleaseMismatch(
            f"the engine generates ads of index {engine.index_version}, evaluation has {index.version}; load that one"
        )
    asked = recipe.evaluation
    sequences, contexts, ecpm, simulated = _read(database_url, encoder)
    split = leave_one_out(sequences.offsets, sequences.domains == _AD, sequences.occurred_at_s)
    if len(split.users) == 0:
        raise InvalidInput("no user has 3 clicks or conversions on ads; import behaviors before evaluating")
    split = _sample(split, asked.max_users, seed=asked.seed)

    chosen = swapped(split, seed=asked.seed)
    again = np.flatnonzero(chosen)  # shuffling ties changes these users' prompts only
    shuffled = replace(
        sequences,
        item_ids=swap(sequences.item_ids, split, chosen),
        actions=swap(sequences.actions, split, chosen),
    )
    sids = {ad_id: index.sid_at(row) for row, ad_id in enumerate(index.ad_ids.tolist())}
    prompts = _prompts(contexts, sequences, split, encoder=encoder, sids=sids)
    prompts += _prompts(contexts.over(shuffled), shuffled, split.take(again), encoder=encoder, sids=sids)
    width = max(*asked.cutoffs, LIST_CUTOFF, recipe.decoding.beam_width)
    generated = _generate(prompts, engine, width=width, batch=asked.batch_users, progress=progress)
    ours, ours_shuffled = generated[: len(split.users)], generated[: len(split.users)].copy()
    ours_shuffled[again] = generated[len(split.users) :]

    lists = {LEADRE: (ours, ours_shuffled)}
    train = _histories(sequences, sequences.offsets[:-1], split.learn_until)
    for name, baseline in ((POPULARITY, Popularity.fit(train)), (CO_VISITATION, CoVisitation.fit(train))):
        canonical, other = (
            baseline.top(_histories(data, data.offsets[split.users], split.test), width, seen=train.seen)
            for data in (sequences, shuffled)
        )
        lists[name] = (canonical, other)
    measured = _measure(lists, split, (sequences, shuffled), index=index, ecpm=ecpm, recipe=asked)
    return replace(measured, simulated_ecpm=simulated)


def _read(database_url: str, encoder: PromptEncoder) -> tuple[Sequences, ContextBuilder, dict[int, float], bool]:
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            sequences = read_sequences(connection)
            contexts = read_contexts(connection, sequences, recipe=encoder.recipe)
            shown = impressions.mean_ecpm(connection, before=datetime.max.replace(tzinfo=UTC))
            bids = {ad.ad_id: ad.bid for ad in read_ads(connection)}
            simulated = impressions.ecpm_is_simulated(connection)
    finally:
        engine.dispose()
    return sequences, contexts, ecpm_of_ads(shown, bids), simulated


def _sample(split: Split, users: int, *, seed: int) -> Split:
    if not 0 < users < len(split.users):
        return split
    return split.take(np.sort(np.random.default_rng(seed).permutation(len(split.users))[:users]))


def _prompts(
    contexts: ContextBuilder,
    sequences: Sequences,
    split: Split,
    *,
    encoder: PromptEncoder,
    sids: Mapping[int, SemanticId],
) -> list[list[int]]:
    prompts = []
    for user, test in zip(split.users.tolist(), split.test.tolist(), strict=True):
        now = datetime.fromtimestamp(float(sequences.occurred_at_s[test]), UTC)
        context = contexts.context(user, test - int(sequences.offsets[user]), now)
        prompts.append(encoder.encode(render(context, recipe=encoder.recipe, sid_of=sids.get)))
    return prompts


def _generate(
    prompts: list[list[int]], engine: Engine, *, width: int, batch: int, progress: Progress | None
) -> NDArray[np.int64]:
    lists = np.full((len(prompts), width), ABSENT, np.int64)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))  # prompts of like length share a batch
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        for row, beams in zip(rows, engine.generate([prompts[at] for at in rows], beam_width=width), strict=True):
            lists[row, : len(beams)] = [beam.ad_id for beam in beams]
        if progress is not None:
            progress("users evaluated", start + len(rows), len(order))
    return lists


def _histories(sequences: Sequences, first: NDArray[np.int64], end: NDArray[np.int64]) -> Histories:
    """Return the ads between two positions, one row for each pair of positions."""
    ads = np.flatnonzero(sequences.domains == _AD)
    low, high = np.searchsorted(ads, first), np.searchsorted(ads, end)
    offsets = np.append(0, np.cumsum(high - low))
    places = np.repeat(low - offsets[:-1], high - low) + np.arange(offsets[-1])
    return Histories(offsets=offsets, items=sequences.item_ids[ads[places]])


def _measure(
    lists: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]],
    split: Split,
    data: tuple[Sequences, Sequences],
    *,
    index: AdIndex,
    ecpm: Mapping[int, float],
    recipe: EvaluationRecipe,
) -> Evaluation:
    cutoffs = tuple(sorted(set(recipe.cutoffs)))
    names = [f"{metric}@{cutoff}" for metric in ("HR", "NDCG") for cutoff in cutoffs]
    figures = {}
    for system, pair in lists.items():
        canonical, shuffled = (
            _by_user(ranks_of(sequences.item_ids[split.test], made), cutoffs)
            for sequences, made in zip(data, pair, strict=True)
        )
        figures[system] = {"canonical": canonical, "untied": canonical[~split.tied], "shuffled": shuffled}
    return Evaluation(
        users=len(split.users),
        tied=int(split.tied.sum()),
        cutoffs=cutoffs,
        metrics={
            system: {
                view: dict(zip(names, intervals(values, seed=recipe.seed), strict=True))
                for view, values in views.items()
            }
            for system, views in figures.items()
        },
        differences={
            system: dict(
                zip(
                    names,
                    paired_differences(figures[LEADRE]["canonical"], views["canonical"], seed=recipe.seed),
                    strict=True,
                )
            )
            for system, views in figures.items()
            if system != LEADRE
        },
        lists={system: _describe(made, index=index, ecpm=ecpm) for system, (made, _) in lists.items()},
        simulated_ecpm=False,
    )


def _by_user(ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack([metric(ranks, cutoff) for metric in (hits, gains) for cutoff in cutoffs], axis=1)


def _describe(lists: NDArray[np.int64], *, index: AdIndex, ecpm: Mapping[int, float]) -> Lists:
    top = lists[:, :LIST_CUTOFF]
    rows = index.rows(top.ravel()).reshape(top.shape)
    categories = np.where(rows < 0, ABSENT, index.first_categories[rows].astype(np.int64))
    ads, inverse = np.unique(top, return_inverse=True)
    worth = np.array([np.nan if ad == ABSENT else ecpm.get(ad, 0.0) for ad in ads.tolist()])
    found = diversity(categories)
    return Lists(
        concentration=found.concentration,
        abundance=found.abundance,
        diversity=found.score,
        mean_ecpm=mean_ecpm(worth[inverse].reshape(top.shape), cutoff=LIST_CUTOFF),
    )
