"""Fit a release's collaborative signal, and find how much it is to weigh beside the LLM: its share, or the ranker.

Ours; see leadre.collaborative.blend, leadre.decoding.exact.fusion and leadre.decoding.combined. Both are fitted on
validation ads through the decoder that serves, and before business alignment, whose shift of the LLM's probabilities
they then let through; test ads have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
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
from leadre.pipelines.histories import split_of, training_histories
from leadre.pipelines.index.build import embed, embedding_store
from leadre.pipelines.index.fit_codebooks import rows_of
from leadre.prompts.fit_length import PromptEncoder
from leadre.recipe import Recipe
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import read_sequences
from leadre.training.data.examples import TrainingData
from leadre.training.learner.learner import Learner

Progress = Callable[[str, int, int | None], None]

WEIGHTS = tuple(step / 20 for step in range(21))
"""Shares of the collaborative signal that are tried."""
CANDIDATES = 50
"""Beams a user that the shares are compared on: decoded with a share of one half, then ranked by each."""
_CUTOFF = 10
_NEVER = -1e9  # of ads that a short list lacks; finite, because 0 times infinity is no number


def fit_signal(
    *, database_url: str, releases: Path, recipe: Recipe, now: datetime, progress: Progress | None = None
) -> Collaborative:
    """Fit the collaborative signal on the histories that training may see.

    Args:
        database_url: the system of record.
        releases: folder of releases; the embeddings of ads lie beside it.
        recipe: its sections `collaborative`, `index` (the encoder) and `evaluation` (what is held out).
        now: later behaviors are not read.
        progress: called as training goes on.

    Raises:
        InvalidInput: no user has clicked or converted on an ad.
        Unavailable: the database does not answer.
    """
    database = connect(database_url, application_name="leadre train")
    try:
        with transaction(database) as connection:
            ads = [ad for ad in read_ads(connection) if clean(ad.name)]
            sequences = read_sequences(connection, until=now)
    finally:
        database.dispose()
    learnt = training_histories(sequences, split_of(sequences, recipe.evaluation))
    if not len(learnt.train.items):
        raise InvalidInput("collaborative.enabled needs clicks or conversions to learn from; import behaviors first")
    store = embedding_store(releases, recipe.index)
    embeddings = embed([describe(ad) for ad in ads], recipe.index, store=store, progress=progress)
    return Collaborative.fit(
        learnt.train,
        targets=learnt.following,
        recipe=recipe.collaborative,
        seed=recipe.sft.seed,
        texts=rows_of(np.array([ad.ad_id for ad in ads], np.int64), embeddings, wanted=np.unique(learnt.train.items)),
        progress=progress,
    )


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
    wanted, prompts = _asked(data, learner.encoder, recipe=recipe)
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
        for row, beams in enumerate(engine.generate(asked, beam_width=CANDIDATES)):
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
    wanted, prompts = _asked(data, encoder, recipe=recipe)
    if not prompts:
        return Ranker.of_weight(0.5)
    lengths = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    parts = []
    for start in range(0, len(lengths), recipe.evaluation.batch_users):
        asked = [prompts[at] for at in lengths[start : start + recipe.evaluation.batch_users]]
        parts.append(gather(engine, signal, asked, each=RANKED, filters=[None] * len(asked)))
        if progress is not None:
            progress("compare the lists", start + len(asked), len(lengths))
    return Ranker.fit(Candidates.joined(parts), signal.index.rows(wanted[lengths]), seed=recipe.sft.seed)


def _asked(
    data: TrainingData, encoder: PromptEncoder, *, recipe: Recipe
) -> tuple[NDArray[np.int64], list[Sequence[int]]]:
    """Return the held-out ads of a seeded sample of validation users, and the prompts that ask for them."""
    order = np.random.default_rng(recipe.sft.seed).permutation(len(data.validation))
    places = [data.validation[at] for at in order[: recipe.collaborative.calibration_users].tolist()]
    wanted = np.array([data.sequences[user][at].item_id for user, at in places], np.int64)
    return wanted, [encoder.encode(data.prompt(*place, augment=False)) for place in places]
