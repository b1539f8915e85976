"""Vectors read off an index add up to what its codebooks say of an ad."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from leadre.domain.ads import Ad
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads
from leadre.indexing.code_vectors import code_vectors
from leadre.indexing.quantisers.quantiser import Floats
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans


def index_of(embeddings: Floats, make_ad: Callable[..., Ad], *, levels: int, codes: int) -> AdIndex:
    quantiser = fit_residual_kmeans(embeddings, levels=levels, codes=codes, width=5, seed=1)
    return index_ads([make_ad(number) for number in range(len(embeddings))], embeddings, quantiser, version="v")


def test_of_residual_codebooks_the_vectors_of_an_ad_s_codes_add_up_to_its_own(
    clusters: Floats, make_ad: Callable[..., Ad]
) -> None:
    index = index_of(clusters, make_ad, levels=3, codes=12)
    vectors = code_vectors(index)
    assert [(own.shape, own.dtype) for own in vectors] == [((12, 5), np.float32)] * 3
    centred = index.embeddings - index.embeddings.mean(axis=0)
    left, sizes = centred.copy(), []
    for level, own in enumerate(vectors):
        left -= own[index.codes[:, level]]
        sizes.append(float(np.linalg.norm(left) / np.linalg.norm(centred)))
    assert sizes == sorted(sizes, reverse=True)  # every level says more of the ads
    assert sizes[-1] < min(0.05, sizes[0] / 2)


def test_codes_that_no_ad_has_are_zero_and_one_ad_is_no_error(clusters: Floats, make_ad: Callable[..., Ad]) -> None:
    index = index_of(clusters[:4], make_ad, levels=2, codes=9)
    first, second = code_vectors(index)
    used = np.unique(index.codes[:, 0])
    assert len(used) == 4
    assert (np.abs(first).max(axis=1) > 0).nonzero()[0].tolist() == used.tolist()
    assert not second.any()  # the first level said all
    assert not any(own.any() for own in code_vectors(index_of(clusters[:1], make_ad, levels=2, codes=9)))
