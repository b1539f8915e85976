"""Fit codebooks of many sizes on one catalog, and measure each: how many levels and codes do these ads need?

LEADRE §5.2.5, Table 5; and §6, future work (2), which says that the first codebook holds most of the information.

The ads are encoded once. Every quantiser is fitted once for each quantity M and size K, whatever number of ways there
are to assign its codes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad
from leadre.errors import ConfigError, InvalidInput
from leadre.experiments.index_sweep.table import Assignment, QuantiserName, Sweep, SweepRow
from leadre.indexing.quality import index_quality
from leadre.indexing.quantisers.balance import balance
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import Progress
from leadre.pipelines.index.build import embed, embedding_store
from leadre.pipelines.index.fit_codebooks import fit_rows
from leadre.recipe import IndexRecipe
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction

_WHOLE = "sweep, % of the work"
_KMEANS_WORK = 40  # a fit by k-means takes about as long as so many epochs of the RQ-VAE; for the remaining time alone


def sweep_catalog(
    *,
    database_url: str,
    indexes: Path,
    recipe: IndexRecipe,
    levels: Sequence[int],
    codes: Sequence[int],
    quantisers: Sequence[QuantiserName],
    assignments: Sequence[Assignment],
    progress: Progress | None = None,
) -> Sweep:
    """Sweep over all ads of the catalog, live or not.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts; beside it are the embeddings that were encoded before, and new ones join.
        recipe: everything but what is swept.
        levels: as in `sweep`.
        codes: as in `sweep`.
        quantisers: as in `sweep`.
        assignments: as in `sweep`.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        InvalidInput: an empty catalog, or an ad without a name.
        ConfigError: the encoder cannot be loaded, or a size is out of bounds.
        Unavailable: the database does not answer.
    """
    database = connect(database_url, application_name="leadre index sweep")
    try:
        with transaction(database) as connection:
            ads = read_ads(connection)
    finally:
        database.dispose()
    if not ads:
        raise InvalidInput("the catalog holds no ads; import some first: `leadre import`")
    store = embedding_store(indexes, recipe)
    encoded = embed([describe(ad) for ad in ads], recipe, store=store, progress=progress)
    return sweep(
        ads,
        encoded,
        recipe=recipe,
        levels=levels,
        codes=codes,
        quantisers=quantisers,
        assignments=assignments,
        progress=progress,
    )


def sweep(
    ads: Sequence[Ad],
    embeddings: NDArray[np.float32],
    *,
    recipe: IndexRecipe,
    levels: Sequence[int],
    codes: Sequence[int],
    quantisers: Sequence[QuantiserName],
    assignments: Sequence[Assignment],
    progress: Progress | None = None,
) -> Sweep:
    """Fit and measure every combination.

    Args:
        ads: at least one, by ascending id.
        embeddings: x_a in the order of the ads, float32[N, d].
        recipe: everything but what is swept.
        levels: M, any number of them.
        codes: K; more than there are ads is allowed, the rest stays unused.
        quantisers: by the recipe's names.
        assignments: by the recipe's names.
        progress: called as each fit goes on, and with the percentage of the whole work.

    Raises:
        InvalidInput: no ads, or an embedding that is not finite.
        ConfigError: M or K out of the recipe's bounds. A combination that its quantiser cannot be fitted to is no
            error: its row says why.
    """
    wanted = [
        _with(recipe, quantiser=name, levels=m, codes=k)
        for name in dict.fromkeys(quantisers)
        for m in sorted(set(levels))
        for k in sorted(set(codes), reverse=True)
    ]
    _, categories = np.unique(np.array([ad.first_category for ad in ads]), return_inverse=True)
    category_codes: NDArray[np.int32] = categories.astype(np.int32)
    fitted_on = embeddings[fit_rows(len(ads), seed=recipe.seed)]
    work = np.cumsum([0] + [_work(each) for each in wanted])
    rows: list[SweepRow] = []
    if progress is not None:
        progress(_WHOLE, 0, 100)
    for number, each in enumerate(wanted):
        name = f"{each.quantiser} {each.levels} x {each.codes}"

        def report(_: str, done: int, total: int, name: str = name, number: int = number) -> None:
            if progress is not None:
                progress(name, done, total)
                so_far = work[number] + (work[number + 1] - work[number]) * done / total
                progress(_WHOLE, int(100 * so_far / work[-1]), 100)

        began = time.perf_counter()
        try:
            quantiser: Quantiser | None = fit_quantiser(fitted_on, each, progress=report)
            reason = ""
        except ConfigError as error:
            quantiser, reason = None, str(error)
        fit_s = time.perf_counter() - began
        steps = each.epochs if each.quantiser == "rqvae" else 1
        report("", steps, steps)
        rows += [
            SweepRow(
                quantiser=each.quantiser,
                levels=each.levels,
                codes=each.codes,
                assignment=assignment,
                quality=_measure(quantiser, embeddings, category_codes, assignment) if quantiser else {},
                reason=reason,
                fit_s=round(fit_s, 3),
            )
            for assignment in dict.fromkeys(assignments)
        ]
    order = {label: place for place, label in enumerate(dict.fromkeys(row.label for row in rows))}
    return Sweep(
        ads=len(ads),
        encoder=recipe.encoder,
        identical=_identical(ads),
        category_bits=_entropy_bits(np.bincount(categories)),
        rows=tuple(sorted(rows, key=lambda row: order[row.label])),
    )


def _with(recipe: IndexRecipe, *, quantiser: QuantiserName, levels: int, codes: int) -> IndexRecipe:
    changed = msgspec.structs.replace(recipe, quantiser=quantiser, levels=levels, codes=codes)
    try:
        return msgspec.convert(msgspec.to_builtins(changed), IndexRecipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{quantiser} with {levels} levels of {codes} codes: {error}") from None


def _work(recipe: IndexRecipe) -> int:
    return recipe.levels * recipe.codes * (recipe.epochs if recipe.quantiser == "rqvae" else _KMEANS_WORK)


def _measure(
    quantiser: Quantiser, embeddings: NDArray[np.float32], categories: NDArray[np.int32], assignment: Assignment
) -> dict[str, Any]:
    codes, _ = quantiser.assign(embeddings)
    hidden = quantiser.hidden(embeddings)
    if assignment == "balanced":
        codes = balance(codes, hidden, quantiser.codebooks)
    return index_quality(
        codes,
        size=quantiser.codebooks.shape[1],
        categories=categories,
        hidden=hidden,
        codebooks=quantiser.codebooks,
    )


def _identical(ads: Sequence[Ad]) -> float:
    counts = Counter(describe(ad) for ad in ads)
    return sum(ads_each for ads_each in counts.values() if ads_each > 1) / len(ads)


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))
