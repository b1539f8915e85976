"""Residual k-means: the simple baseline quantiser, and the start of the RQ-VAE's codebooks.

LEADRE §3.2, Eq. 2-4 with k-means codebooks over principal components in place of a learned encoder.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from leadre.errors import ConfigError
from leadre.indexing.quantiser import Floats, Quantiser, check_embeddings, quantise

_FULL_KMEANS = 50_000  # above this many rows mini-batches are as good and much faster


def fit_residual_kmeans(embeddings: Floats, *, levels: int, codes: int, width: int, seed: int) -> Quantiser:
    """Fit the quantiser: principal components, then k-means on what each level leaves over.

    Args:
        embeddings: x_a, float32[N, d], N >= 1.
        levels: M.
        codes: K. More than there are distinct ads is allowed: the rest stay unused.
        width: principal components kept, at most d. Fewer where there are fewer ads; the others are 0.
        seed: of PCA and k-means.

    Raises:
        InvalidInput: a value that is not finite.
        ConfigError: `width` exceeds d.
    """
    check_embeddings(embeddings)
    if width > embeddings.shape[1]:
        raise ConfigError(f"index.width={width} exceeds the embeddings' width {embeddings.shape[1]}; lower it")
    mean = embeddings.mean(axis=0)
    pca = PCA(n_components=min(width, len(embeddings)), random_state=seed).fit(embeddings)
    weight = np.zeros((width, embeddings.shape[1]), np.float32)
    weight[: len(pca.components_)] = pca.components_
    layer = (weight, -(weight @ mean))
    codebooks = residual_codebooks(embeddings @ weight.T + layer[1], levels=levels, codes=codes, seed=seed)
    return Quantiser(layers=(layer,), codebooks=codebooks)


def residual_codebooks(hidden: Floats, *, levels: int, codes: int, seed: int) -> Floats:
    """Return k-means codebooks, float32[levels, codes, width], each fitted on what the levels before leave over."""
    codebooks = np.empty((levels, codes, hidden.shape[1]), np.float32)
    residual = hidden
    for level in range(levels):
        codebooks[level] = _centres(residual, codes, seed + level)
        residual = residual - quantise(residual, codebooks[level : level + 1])[1]
    return codebooks


def _centres(points: Floats, codes: int, seed: int) -> Floats:
    distinct = np.unique(points, axis=0)
    if len(distinct) <= codes:  # every point is a centre; repeated ones are never nearest first, hence unused
        return np.concatenate([distinct, np.repeat(distinct[-1:], codes - len(distinct), axis=0)])
    kmeans = (
        KMeans(codes, n_init=1, max_iter=50, random_state=seed)
        if len(points) <= _FULL_KMEANS
        else MiniBatchKMeans(codes, n_init=1, max_iter=20, batch_size=max(8 * codes, 4096), random_state=seed)
    )
    with warnings.catch_warnings():  # points that differ by rounding only may be fewer than the codes
        warnings.simplefilter("ignore", ConvergenceWarning)
        centres: Floats = kmeans.fit(points).cluster_centers_.astype(np.float32)
    return centres
