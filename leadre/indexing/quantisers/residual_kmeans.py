"""Residual k-means: the simple baseline quantiser, and the start of the RQ-VAE's codebooks.

LEADRE §3.2, Eq. 2-4 with k-means codebooks over principal components in place of a learned encoder.
"""

from __future__ import annotations

import faiss
import numpy as np
from sklearn.cluster import kmeans_plusplus

from leadre.errors import ConfigError
from leadre.indexing.quantisers.quantiser import Floats, Quantiser, check_embeddings, quantise

_ADS_PER_CODE = 256  # more teach k-means nothing (FAISS's own bound)
_START_POINTS = 32_768
_ROUNDS = 25
_NO_VARIANCE, _TINY = 1e-7, 1e-30  # relative to the first component's; absolute


def fit_residual_kmeans(embeddings: Floats, *, levels: int, codes: int, width: int, seed: int) -> Quantiser:
    """Fit the quantiser: principal components, then k-means on what each level leaves over.

    Of more than 256 x K ads a sample is used.

    Args:
        embeddings: x_a, float32[N, d], N >= 1.
        levels: M.
        codes: K. More than there are distinct ads is allowed: the rest stay unused.
        width: principal components kept, at most d. Fewer where there are fewer ads; the others are 0.
        seed: of the sample and of k-means.

    Raises:
        InvalidInput: a value that is not finite.
        ConfigError: `width` exceeds d.
    """
    check_embeddings(embeddings)
    ads = sample(embeddings, codes, seed)
    weight, bias = principal_components(ads, width)
    codebooks = residual_codebooks(ads @ weight.T + bias, levels=levels, codes=codes, seed=seed)
    return Quantiser(layers=((weight, bias),), codebooks=codebooks)


def sample(embeddings: Floats, codes: int, seed: int) -> Floats:
    """Return as many ads as k-means with so many codes can learn from, at random; all of them where they are fewer."""
    wanted = _ADS_PER_CODE * codes
    if len(embeddings) <= wanted:
        return embeddings
    return embeddings[np.sort(np.random.default_rng(seed).choice(len(embeddings), wanted, replace=False))]


def principal_components(embeddings: Floats, width: int) -> tuple[Floats, Floats]:
    """Return weight [width, d] and bias [width] of the linear layer onto the first principal components, largest first.

    Those that the ads do not spread along are 0, as with fewer ads than `width`.

    Raises:
        ConfigError: `width` exceeds d.
    """
    if width > embeddings.shape[1]:
        raise ConfigError(f"index.width={width} exceeds the embeddings' width {embeddings.shape[1]}; lower it")
    mean = embeddings.mean(axis=0)
    centred = embeddings - mean
    variances, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    variances, vectors = variances[::-1][:width], vectors[:, ::-1][:, :width]
    weight = np.where(variances > _NO_VARIANCE * max(variances[0], _TINY), vectors, 0).T.astype(np.float32)
    return weight, -(weight @ mean)


def residual_codebooks(hidden: Floats, *, levels: int, codes: int, seed: int, start: Floats | None = None) -> Floats:
    """Return k-means codebooks, float32[levels, codes, width], each fitted on what the levels before leave over.

    `start`, of the same shape, is where k-means starts from in place of k-means++.
    """
    codebooks = np.empty((levels, codes, hidden.shape[1]), np.float32)
    residual = hidden
    for level in range(levels):
        codebooks[level] = centres(residual, codes, seed + level, start=None if start is None else start[level])
        residual = residual - quantise(residual, codebooks[level : level + 1])[1]
    return codebooks


def centres(points: Floats, codes: int, seed: int, *, start: Floats | None = None) -> Floats:
    """Return the centres that k-means finds, float32[codes, width]; fewer points than that are repeated.

    Args:
        points: float32[N, width].
        codes: K.
        seed: of the start, and of how FAISS refills a centre that lost its points.
        start: float32[codes, width]; without it, k-means++'s.
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) <= codes:  # every point is a centre; repeated ones are never nearest first, hence unused
        return np.concatenate([distinct, np.repeat(distinct[-1:], codes - len(distinct), axis=0)])
    if start is None:
        few = points[np.random.default_rng(seed).permutation(len(points))[:_START_POINTS]]
        start, _ = kmeans_plusplus(few, codes, random_state=seed)
    kmeans = faiss.Kmeans(
        points.shape[1],
        codes,
        niter=_ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_ADS_PER_CODE + 1,  # all that `sample` leaves
    )
    kmeans.train(np.ascontiguousarray(points, np.float32), init_centroids=start)
    return np.asarray(kmeans.centroids, np.float32)
