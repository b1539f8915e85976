"""Fit the codebooks of an index, on texts or on what histories say of the ads. LEADRE §3.2; docs/adr/0008."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.domain.behavior import Domain
from leadre.errors import InvalidInput
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Quantiser
from leadre.indexing.texts.encoder import Progress
from leadre.pipelines.histories import TrainingHistories, split_of, training_histories
from leadre.recipe import EvaluationRecipe, IndexRecipe
from leadre.store.records.events import read_sequences

if TYPE_CHECKING:
    from sqlalchemy import Connection

FIT_ADS = 1_000_000
"""Codebooks are fitted on so many ads at most, a seeded sample of a larger catalog (ours)."""


def learnable_histories(connection: Connection, recipe: EvaluationRecipe, *, now: datetime) -> TrainingHistories:
    """Return the ad histories that codebooks may be fitted on: nothing that the recipe holds out, nothing after `now`.

    Raises:
        InvalidInput: there are none.
    """
    sequences = read_sequences(connection, domains=(Domain.AD,), until=now)
    found = training_histories(sequences, split_of(sequences, recipe))
    if not len(found.train.items):
        raise InvalidInput(
            "index.signal='collaborative' learns from clicks and conversions, and there are none to learn from; import "
            "behaviors first, or build with index.signal='text'"
        )
    return found


def fit_codebooks(
    ads: Sequence[Ad],
    embeddings: NDArray[np.float32],
    learnt: TrainingHistories | None,
    *,
    recipe: IndexRecipe,
    kept: Path | None = None,
    progress: Progress | None,
) -> tuple[Quantiser, NDArray[np.float32] | None]:
    """Return the quantiser, and what it is to quantise, float32[N, width], where that is more than the texts say.

    Args:
        ads: by ascending id.
        embeddings: x_a, float32[N, d].
        learnt: the histories, for the signal "collaborative"; None for "text".
        recipe: how ads get S-IDs.
        kept: folder of SASRecs that need not be trained again (leadre.collaborative.kept); None: none is kept.
        progress: called as the fit goes on.

    Raises:
        ConfigError: the recipe does not fit the embeddings.
    """
    if learnt is None:
        return fit_quantiser(embeddings[fit_rows(len(ads), seed=recipe.seed)], recipe, progress=progress), None
    from leadre.collaborative.codebooks import fit_collaborative  # brings torch
    from leadre.collaborative.kept import fit_once

    ids = np.array([ad.ad_id for ad in ads], np.int64)
    sasrec = fit_once(
        kept,
        learnt.train,
        targets=learnt.following,
        recipe=recipe.sasrec,
        seed=recipe.seed,
        texts=rows_of(ids, embeddings, wanted=np.unique(learnt.train.items)),
        progress=None if progress is None else lambda what, done, total: progress(what, done, total or done),
    )
    return fit_collaborative(embeddings, ids, sasrec, recipe=recipe)


def rows_of(
    ad_ids: NDArray[np.int64], embeddings: NDArray[np.float32], *, wanted: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the embeddings of wanted ads, float32[n, d]; an ad that is not there gets the mean of all.

    Args:
        ad_ids: int64[N].
        embeddings: float32[N, d].
        wanted: int64[n].
    """
    order = np.argsort(ad_ids)
    rows = order[np.minimum(np.searchsorted(ad_ids, wanted, sorter=order), len(ad_ids) - 1)]
    there = ad_ids[rows] == wanted
    return np.where(there[:, None], embeddings[rows], embeddings.mean(axis=0))


def fit_rows(ads: int, *, seed: int) -> NDArray[np.int64]:
    """Return which of the ads, by ascending id, the codebooks are fitted on: int64[n], ascending."""
    if ads <= FIT_ADS:
        return np.arange(ads)
    return np.sort(np.random.default_rng(seed).choice(ads, FIT_ADS, replace=False))
