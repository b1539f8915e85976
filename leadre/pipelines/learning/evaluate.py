"""Offline evaluation: a release beside popularity, co-visitation, SASRec and TIGER, on the same users and targets.

LEADRE §5.1.1 (leave-one-out), §5.1.2 (HR@K, NDCG@K, over ads), §5.2.3 (diversity). Three views: "canonical" (the data's
own order), "untied" (users whose two held-out ads have different times), "shuffled" (ties in random order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine
from leadre.domain.semantic_id import SemanticId
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity, Seen
from leadre.evaluation.ranking import ABSENT
from leadre.evaluation.slices import slices
from leadre.evaluation.split import Split, swap, swapped
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import ad_histories, split_of, training_histories
from leadre.pipelines.learning.measures import LEADRE, LIST_CUTOFF, LTR_LABELS, Answers, Evaluation, measure
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.render import render
from leadre.recipe import EvaluationRecipe, Recipe
from leadre.store.records import impressions
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.distribution.arpu import ARPU_GROUPS
from leadre.store.records.ecpm import ecpm_is_simulated, read_ecpm_log
from leadre.store.records.events import Sequences, read_sequences
from leadre.store.records.request_path import arpu_groups
from leadre.training.data.contexts import ContextBuilder, read_contexts

if TYPE_CHECKING:
    from leadre.collaborative.blend import Collaborative  # brings torch

Progress = Callable[[str, int, int | None], None]


def evaluate(
    *,
    database_url: str,
    index: AdIndex,
    engine: Engine,
    encoder: PromptEncoder,
    recipe: Recipe,
    collaborative: Collaborative | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure an engine on every user's test ad, each prompt as of that ad's time and without it.

    Args:
        database_url: where the behaviors are.
        index: the engine's.
        engine: of the release.
        encoder: of the release; its recipe says what a prompt holds.
        recipe: its `evaluation` section, and the beam width of `decoding` (widened to the largest cutoff).
        collaborative: the release's collaborative signal, for the baseline of that name; None: it has none.
        now: later behaviors are not read; None: there are none.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        ReleaseMismatch: the engine generates S-IDs of another index.
        InvalidInput: no user has enough ad behaviors to be evaluated.
        Unavailable: PostgreSQL does not answer.
    """
    return measure(
        answer(
            database_url=database_url,
            index=index,
            engine=engine,
            encoder=encoder,
            recipe=recipe,
            collaborative=collaborative,
            now=now,
            progress=progress,
        )
    )


def answer(
    *,
    database_url: str,
    index: AdIndex,
    engine: Engine,
    encoder: PromptEncoder,
    recipe: Recipe,
    collaborative: Collaborative | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Return the lists of an engine and of the recipe's baselines, not yet measured. All as in `evaluate`."""
    if engine.index_version != index.version:
        raise ReleaseMismatch(
            f"the engine generates ads of index {engine.index_version}, evaluation has {index.version}; load that one"
        )
    asked = recipe.evaluation
    sequences, contexts, ecpm, simulated, arpu = _read(database_url, encoder, until=now)
    everyone = split_of(sequences, asked)
    if len(everyone.users) == 0:
        raise InvalidInput(
            "no user has 3 clicks or conversions on ads (with evaluation.split='global_time', 2 before the cut and 1 "
            "after it); import behaviors before evaluating"
        )
    split = _sample(everyone, asked.max_users, seed=asked.seed)

    chosen = swapped(split, seed=asked.seed)
    again = np.flatnonzero(chosen)  # shuffling ties changes these users' prompts only
    shuffled = replace(
        sequences,
        item_ids=swap(sequences.item_ids, split, chosen),
        actions=swap(sequences.actions, split, chosen),
    )
    sids = {ad_id: index.sid_at(row) for row, ad_id in enumerate(index.ad_ids.tolist())}
    labels = _ltr_labels(database_url, sequences, split)
    prompts = _prompts(contexts, sequences, split, encoder=encoder, sids=sids)
    prompts += _prompts(contexts.over(shuffled), shuffled, split.take(again), encoder=encoder, sids=sids)
    width = max(*asked.cutoffs, LIST_CUTOFF, recipe.decoding.beam_width)
    generated = _generate(prompts, engine, width=width, batch=asked.batch_users, progress=progress)
    ours, ours_shuffled = generated[: len(split.users)], generated[: len(split.users)].copy()
    ours_shuffled[again] = generated[len(split.users) :]

    lists = {LEADRE: (ours, ours_shuffled)}
    learnt = training_histories(sequences, everyone)
    train, following = learnt.train, learnt.following
    before = [ad_histories(data, data.offsets[split.users], split.test) for data in (sequences, shuffled)]
    for name in asked.baselines:
        if name != "collaborative":
            baseline = _fit(name, train, following, index=index, recipe=asked, progress=progress)
        elif collaborative is not None:
            baseline = collaborative
        else:
            continue
        canonical, other = (baseline.top(histories, width, seen=train.seen) for histories in before)
        lists[name] = (canonical, other)
    sliced = slices(
        targets=sequences.item_ids[split.test],
        learnt=train.items,
        known=np.diff(before[0].offsets),
        arpu_groups=arpu[split.users],
        group_count=ARPU_GROUPS,
    )
    return Answers(
        lists=lists,
        split=split,
        data=(sequences, shuffled),
        index=index,
        ecpm=ecpm,
        labels=labels,
        sliced=sliced,
        recipe=asked,
        simulated_ecpm=simulated,
    )


def _read(
    database_url: str, encoder: PromptEncoder, *, until: datetime | None
) -> tuple[Sequences, ContextBuilder, dict[int, float], bool, NDArray[np.int64]]:
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            sequences = read_sequences(connection, until=until)
            contexts = read_contexts(connection, sequences, recipe=encoder.recipe)
            ecpm = read_ecpm_log(connection).ecpm_of({ad.ad_id: ad.bid for ad in read_ads(connection)})
            simulated = ecpm_is_simulated(connection)
            arpu = np.array(arpu_groups(connection, sequences.users.tolist()), np.int64)
    finally:
        engine.dispose()
    return sequences, contexts, ecpm, simulated, arpu


def _ltr_labels(database_url: str, sequences: Sequences, split: Split) -> list[list[int]]:
    users = sequences.users[split.users].tolist()
    held_out = sequences.occurred_at_s[split.validation].tolist()
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            since = [datetime.fromtimestamp(at, UTC) for at in held_out]
            best = impressions.best_shown(connection, users, since=since, count=LTR_LABELS)
    finally:
        engine.dispose()
    return [best.get(user, []) for user in users]


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


class _Baseline(Protocol):
    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]: ...


def _fit(
    name: str,
    train: Histories,
    following: NDArray[np.int64],
    *,
    index: AdIndex,
    recipe: EvaluationRecipe,
    progress: Progress | None,
) -> _Baseline:
    if name == "popularity":
        return Popularity.fit(train)
    if name == "co_visitation":
        return CoVisitation.fit(train)
    if name == "tiger":  # brings torch, as SASRec does
        from leadre.decoding.load import engine_of
        from leadre.training.tiger import Tiger

        return Tiger.fit(
            train,
            targets=following,
            index=index,
            engine_of=lambda model, vocabulary: engine_of(model, index=index, vocabulary=vocabulary, score="level"),
            recipe=recipe.tiger,
            seed=recipe.seed,
            progress=progress,
        )
    from leadre.collaborative.sasrec import SasRec

    return SasRec.fit(train, targets=following, recipe=recipe.sasrec, seed=recipe.seed, progress=progress)
