"""Fit a release's collaborative signal, and find how much it is to weigh beside the LLM: its share, or the ranker.

Ours; see leadre.collaborative.blend, leadre.decoding.exact.fusion and leadre.decoding.combined. Both are fitted on
validation ads through the decoder that serves, and before business alignment, whose shift of the LLM's probabilities
they then let through; test ads have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import MANIFEST, open_artifact, write_artifact
from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted, cross_fit
from leadre.decoding.combined.engine import CANDIDATES as RANKED
from leadre.decoding.combined.features import Candidates, gather
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.engine import Engine
from leadre.decoding.exact.fusion import Fusion, IndexedSignal
from leadre.decoding.load import engine_of
from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT, ndcg, ranks_of
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.texts.description import clean, describe
from leadre.indexing.trie import LiveMask
from leadre.pipelines.histories import TrainingHistories, sasrecs_beside, split_of, training_histories
from leadre.pipelines.index.build import embed, embedding_store
from leadre.pipelines.index.fit_codebooks import rows_of
from leadre.pipelines.learning.validate import filters_at
from leadre.prompts.fit_length import PromptEncoder
from leadre.recipe import Recipe
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import read_sequences
from leadre.training.data.examples import TrainingData
from leadre.training.learner.learner import Learner
from leadre.training.run.processes import is_main

Progress = Callable[[str, int, int | None], None]

WEIGHTS = tuple(step / 20 for step in range(21))
"""Shares of the collaborative signal that are tried."""
CANDIDATES = 50
"""Beams a user that the shares are compared on: decoded with a share of one half, then ranked by each."""
SIGNAL = "signal"
_CUTOFF = 10
_NEVER = -1e9  # of ads that a short list lacks; finite, because 0 times infinity is no number


def fit_signal(
    *,
    database_url: str,
    releases: Path,
    recipe: Recipe,
    now: datetime,
    kept: Path | None = None,
    progress: Progress | None = None,
) -> Collaborative:
    """Fit the collaborative signal on the histories that training may see.

    Args:
        database_url: the system of record.
        releases: folder of releases; the embeddings of ads and the SASRecs that were trained before lie beside it.
        recipe: its sections `collaborative`, `index` (the encoder) and `evaluation` (what is held out).
        now: later behaviors are not read.
        kept: folder of an unfinished training's signal: taken from there, or fitted and left there.
        progress: called as training goes on.

    Raises:
        InvalidInput: no user has clicked or converted on an ad.
        Unavailable: the database does not answer.
    """
    if kept is not None and (kept / MANIFEST).exists():
        open_artifact(kept, kind=SIGNAL)
        found = Collaborative.load(kept)
        if found is not None:
            return found[0]
    _, learnt, texts = _read(database_url=database_url, releases=releases, recipe=recipe, now=now, progress=progress)
    signal = Collaborative.fit(
        learnt.train,
        targets=learnt.following,
        recipe=recipe.collaborative,
        seed=recipe.sft.seed,
        texts=texts,
        kept=sasrecs_beside(releases),
        progress=progress,
    )
    if kept is not None and is_main():
        write_artifact(kept, kind=SIGNAL, facts={}, write=lambda folder: signal.write_into(folder, weight=0.0))
    return signal


def cross_fit_signal(
    signal: Collaborative,
    *,
    database_url: str,
    releases: Path,
    recipe: Recipe,
    now: datetime,
    progress: Progress | None = None,
) -> CrossFitted:
    """Return the signal with a model for each of the recipe's folds of users, as `sft.distil` asks for.

    The arguments are those of `fit_signal`; without folds nothing is read.
    """
    folds = recipe.sft.distil.folds
    if not folds:
        return CrossFitted(signal=signal)
    users, learnt, texts = _read(
        database_url=database_url, releases=releases, recipe=recipe, now=now, progress=progress
    )
    return cross_fit(
        signal,
        learnt.train,
        users=users,
        folds=folds,
        recipe=recipe.collaborative.sasrec,
        seed=recipe.sft.seed,
        texts=texts,
        kept=sasrecs_beside(releases),
        progress=progress,
    )


def _read(
    *, database_url: str, releases: Path, recipe: Recipe, now: datetime, progress: Progress | None
) -> tuple[NDArray[np.int64], TrainingHistories, NDArray[np.float32]]:
    """Return user ids, their histories, and the embeddings of the ads in these."""
    database = connect(database_url, application_name="leadre train")
    try:
        with transaction(database) as connection:
            ads = [ad for ad in read_ads(connection) if clean(ad.name)]
            sequences = read_sequences(connection, until=now)
    finally:
        database.dispose()
    learnt = training_histories(sequences, split_of(sequences, recipe.evaluation))
    if not len(learnt.train.items):
        raise InvalidInput("the collaborative signal needs clicks or conversions to learn from; import behaviors first")
    store = embedding_store(releases, recipe.index)
    embeddings = embed([describe(ad) for ad in ads], recipe.index, store=store, progress=progress)
    ad_ids = np.array([ad.ad_id for ad in ads], np.int64)
    return sequences.users, learnt, rows_of(ad_ids, embeddings, wanted=np.unique(learnt.train.items))


def calibrate(
    signal: Collaborative,
    learner: Learner,
    data: TrainingData,
    *,
    index: AdIndex,
    recipe: Recipe,
    progress: Progress | None = None,
) -> float:
    """Return the share of the signal with the highest NDCG@10 on validation users, the smallest among equals.

    Args:
        signal: fitted.
        learner: with the trained model.
        data: its validation ads.
        index: the ads.
        recipe: says how many users are asked, and how the model scores.
        progress: called with what is done.
    """
    wanted, prompts, filters = _asked(data, learner.encoder, index=index, recipe=recipe)
    if not prompts:
        return 0.5
    half = Fusion(signal, weight=0.5, index=index, vocabulary=learner.vocabulary)
    engine = engine_of(
        learner.model, index=index, vocabulary=learner.vocabulary, score=recipe.decoding.score, fusion=half
    )
    ads = np.full((len(prompts), CANDIDATES), ABSENT, np.int64)
    by_llm, by_signal = (np.full(ads.shape, _NEVER) for _ in range(2))
    lengths = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    for start in range(0, len(lengths), recipe.evaluation.batch_users):
        chosen = lengths[start : start + recipe.evaluation.batch_users]
        asked = [prompts[at] for at in chosen]
        said = half.read(asked, request_of=np.arange(len(asked)))
        lists = engine.generate(asked, beam_width=CANDIDATES, filters=[filters[at] for at in chosen])
        for row, beams in enumerate(lists):
            at, found = chosen[row], slice(len(beams))
            ads[at, found] = [beam.ad_id for beam in beams]
            by_signal[at, found] = said.of_leaves(row, index.rows(ads[at, found]))
            by_llm[at, found] = 2.0 * np.array([beam.log_probability for beam in beams]) - by_signal[at, found]
        if progress is not None:
            progress("weigh the signal", start + len(chosen), len(lengths))
    reached = []
    for weight in WEIGHTS:
        ranked = np.argsort(-((1.0 - weight) * by_llm + weight * by_signal), axis=1)
        reached.append(ndcg(ranks_of(wanted, np.take_along_axis(ads, ranked, axis=1)), _CUTOFF))
    return WEIGHTS[int(np.argmax(reached))]


def fit_ranker(
    engine: Engine,
    signal: IndexedSignal,
    data: TrainingData,
    *,
    encoder: PromptEncoder,
    recipe: Recipe,
    progress: Progress | None = None,
) -> Ranker:
    """Return the ranker of the LLM's and the signal's lists, fitted on validation users; without any, an even weight.

    Args:
        engine: the LLM alone.
        signal: fitted, over the engine's index.
        data: its validation ads.
        encoder: of prompts.
        recipe: says how many users are asked.
        progress: called with what is done.
    """
    wanted, prompts, filters = _asked(data, encoder, index=signal.index, recipe=recipe)
    if not prompts:
        return Ranker.of_weight(0.5)
    lengths = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    parts = []
    for start in range(0, len(lengths), recipe.evaluation.batch_users):
        chosen = lengths[start : start + recipe.evaluation.batch_users]
        asked, masks = [prompts[at] for at in chosen], [filters[at] for at in chosen]
        parts.append(gather(engine, signal, asked, each=RANKED, filters=masks))
        if progress is not None:
            progress("compare the lists", start + len(chosen), len(lengths))
    return Ranker.fit(Candidates.joined(parts), signal.index.rows(wanted[lengths]), seed=recipe.sft.seed)


def _asked(
    data: TrainingData, encoder: PromptEncoder, *, index: AdIndex, recipe: Recipe
) -> tuple[NDArray[np.int64], list[list[int]], list[LiveMask | None]]:
    """Return the held-out ads of a seeded sample of validation users, the prompts that ask for them, and filters."""
    order = np.random.default_rng(recipe.sft.seed).permutation(len(data.validation))
    places = [data.validation[at] for at in order[: recipe.collaborative.calibration_users].tolist()]
    wanted = np.array([data.sequences[user][at].item_id for user, at in places], np.int64)
    prompts = [encoder.encode(data.prompt(*place, augment=False)) for place in places]
    return wanted, prompts, filters_at(places, data, index=index)
