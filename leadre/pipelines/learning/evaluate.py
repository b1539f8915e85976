"""Offline evaluation: a release beside popularity, co-visitation, SASRec and TIGER, on the same users and targets.

LEADRE §5.1.1 (leave-one-out), §5.1.2 (HR@K, NDCG@K, over ads), §5.2.3 (diversity). Three views: "canonical" (the data's
own order), "untied" (users whose two held-out ads have different times), "shuffled" (ties in random order).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.engine import Engine
from leadre.evaluation.baselines import CoVisitation, Histories, Popularity, Seen
from leadre.evaluation.slices import slices
from leadre.evaluation.split import Split
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import TrainingHistories
from leadre.pipelines.learning.measures import LEADRE, LIST_CUTOFF, LTR_LABELS, Answers, Evaluation, measure
from leadre.pipelines.learning.questions import Progress, ask, check_index
from leadre.prompts.fit_length import PromptEncoder
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


def evaluate(
    *,
    database_url: str,
    index: AdIndex,
    engine: Engine,
    encoder: PromptEncoder,
    recipe: Recipe,
    collaborative: Collaborative | None = None,
    seen: Seen = "keep",
    kept: Path | None = None,
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
        seen: what the release's lists do with a user's own ads.
        kept: folder of SASRecs that need not be trained again (leadre.collaborative.kept); None: none is kept.
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
            seen=seen,
            kept=kept,
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
    seen: Seen = "keep",
    kept: Path | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Return the lists of an engine and of the recipe's baselines, not yet measured. All as in `evaluate`."""
    check_index(engine, index)
    asked = recipe.evaluation
    sequences, contexts, ecpm, simulated, arpu = _read(database_url, encoder, until=now)
    questions = ask(sequences, contexts, index=index, encoder=encoder, recipe=asked, seen=seen)
    split, train, before = questions.split, questions.learnt.train, questions.before
    width = max(*asked.cutoffs, LIST_CUTOFF, recipe.decoding.beam_width)
    lists = {LEADRE: questions.answers(engine, width=width, batch=asked.batch_users, progress=progress)}
    for name in asked.baselines:
        if name != "collaborative":
            baseline = _fit(name, questions.learnt, index=index, recipe=asked, kept=kept, progress=progress)
        elif collaborative is not None:
            baseline = collaborative
        else:
            continue
        canonical, other = (baseline.top(histories, width, seen=train.seen) for histories in before)
        lists[name] = (canonical, other)
    sliced = slices(
        targets=questions.targets[0],
        train=train,
        before=before[0],
        arpu_groups=arpu[split.users],
        group_count=ARPU_GROUPS,
    )
    return Answers(
        lists=lists,
        split=split,
        data=questions.data,
        index=index,
        ecpm=ecpm,
        labels=_ltr_labels(database_url, sequences, split),
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


class _Baseline(Protocol):
    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]: ...


def _fit(
    name: str,
    learnt: TrainingHistories,
    *,
    index: AdIndex,
    recipe: EvaluationRecipe,
    kept: Path | None,
    progress: Progress | None,
) -> _Baseline:
    train, following = learnt.train, learnt.following
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
    from leadre.collaborative.kept import fit_once

    return fit_once(kept, train, targets=following, recipe=recipe.sasrec, seed=recipe.seed, progress=progress)
