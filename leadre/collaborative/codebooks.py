"""Codebooks on the collaborative signal: ads that follow the same ads share codes, not only ads with like texts.

Ours; LEADRE §3.2 quantises text embeddings. What is quantised is SASRec's item embedding, which starts from the ad's
text. An ad that no history holds, new ones among them, takes its place by its text, through a linear map learned on
the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.collaborative.sasrec import SasRec
from leadre.errors import InvalidInput
from leadre.indexing.quantisers.quantiser import Floats, Quantiser
from leadre.indexing.quantisers.residual_kmeans import principal_components, residual_codebooks, sample
from leadre.recipe import IndexRecipe

RIDGE = 0.1
"""Weight of the map's squared norm, relative to the mean squared norm of a text embedding's component (ours)."""


def fit_collaborative(
    embeddings: Floats, ad_ids: NDArray[np.int64], sasrec: SasRec, *, recipe: IndexRecipe
) -> tuple[Quantiser, Floats]:
    """Fit codebooks on what SASRec learned of the ads.

    Args:
        embeddings: x_a, float32[N, d].
        ad_ids: int64[N].
        sasrec: knows some of the ads, at least one.
        recipe: its levels, codes, width and seed.

    Returns:
        The quantiser, whose layer is the map from texts, and what it quantises of these ads, float32[N, width].

    Raises:
        ConfigError: `recipe.width` exceeds SASRec's.
        InvalidInput: SASRec knows none of these ads.
    """
    order = np.argsort(ad_ids)
    place = np.minimum(np.searchsorted(ad_ids, sasrec.items, sorter=order), len(ad_ids) - 1)
    rows = order[place]
    here = ad_ids[rows] == sasrec.items
    if not here.any():
        raise InvalidInput(
            f"none of the {len(here)} ads in the histories is in the catalog, so nothing is known of the ads to index; "
            "import ads and behaviors of one system"
        )
    learnt = sasrec.network.items.weight.detach().cpu().numpy()[here]
    weight, bias = principal_components(learnt, recipe.width)
    vectors = learnt @ weight.T + bias
    vectors /= max(float(vectors.std()), np.finfo(np.float32).tiny)
    layer = _map(embeddings[rows[here]], vectors)
    hidden = embeddings @ layer[0].T + layer[1]
    hidden[rows[here]] = vectors
    fitted_on = sample(hidden, recipe.codes, recipe.seed)
    codebooks = residual_codebooks(fitted_on, levels=recipe.levels, codes=recipe.codes, seed=recipe.seed)
    return Quantiser(layers=(layer,), codebooks=codebooks), hidden


def _map(texts: Floats, vectors: Floats) -> tuple[Floats, Floats]:
    """Return weight [width, d] and bias [width] of the ridge regression of vectors on texts."""
    mean = texts.mean(axis=0)
    centred = (texts - mean).astype(np.float64)
    square = centred.T @ centred
    square[np.diag_indices_from(square)] += RIDGE * max(np.trace(square) / len(square), np.finfo(np.float32).tiny)
    weight = np.linalg.solve(square, centred.T @ vectors.astype(np.float64)).T.astype(np.float32)
    return weight, vectors.mean(axis=0) - weight @ mean
