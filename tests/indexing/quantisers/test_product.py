from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import ConfigError
from leadre.indexing.quality import variance_explained
from leadre.indexing.quantisers.product import allocate, fit_product
from leadre.indexing.quantisers.quantiser import Floats
from leadre.indexing.quantisers.residual_kmeans import fit_residual_kmeans


def test_its_codes_are_those_of_plain_product_quantisation(clusters: Floats) -> None:
    quantiser = fit_product(clusters, levels=3, codes=12, width=8, seed=0)
    hidden = quantiser.hidden(clusters)
    codes, quantised = quantiser.assign(clusters)
    seen = np.zeros(8, int)
    for level, codebook in enumerate(quantiser.codebooks):
        own = np.flatnonzero(codebook.any(axis=0))  # the components of this level; no other level has them
        seen[own] += 1
        distances = ((hidden[:, None, own] - codebook[:, own]) ** 2).sum(axis=2)
        np.testing.assert_array_equal(codes[:, level], distances.argmin(axis=1))
        np.testing.assert_allclose(quantised[:, own], codebook[codes[:, level]][:, own], atol=1e-6)
    assert seen.tolist() == [1] * 8


def test_components_are_shared_out_by_hand() -> None:
    # 27 and 9 open two levels; 8 goes to the smaller product, 9, so 4 goes to 27; 2 to 9 x 8 < 27 x 4, 1 to 27 x 4
    allocation = allocate(np.array([9, 27, 8, 4, 2, 1], np.float32), 2)
    assert [components.tolist() for components in allocation] == [[1, 3, 5], [0, 2, 4]]  # sums 32 and 19


@given(st.integers(1, 6), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_every_component_has_one_level_and_levels_differ_by_one_component(levels: int, more: int, seed: int) -> None:
    variances = np.random.default_rng(seed).exponential(size=levels + more).astype(np.float32)
    allocation = allocate(variances, levels)
    assert sorted(np.concatenate(allocation).tolist()) == list(range(levels + more))
    assert {len(components) for components in allocation} <= {len(variances) // levels, -(-len(variances) // levels)}


def test_it_spreads_what_residual_kmeans_puts_into_the_first_level() -> None:
    scales = np.linspace(2, 1, 16)
    embeddings = (np.random.default_rng(0).normal(size=(3000, 16)) * scales).astype(np.float32)
    shares = []
    for fit in (fit_product, fit_residual_kmeans):
        quantiser = fit(embeddings, levels=4, codes=32, width=16, seed=0)
        explained = variance_explained(
            quantiser.assign(embeddings)[0], quantiser.hidden(embeddings), quantiser.codebooks
        )
        shares.append(np.diff(explained, prepend=0) / explained[-1])
    assert shares[0].max() < 0.35
    assert shares[1].max() > 0.4


def test_a_level_without_a_component_is_refused(clusters: Floats) -> None:
    with pytest.raises(ConfigError, match=r"index.width=3 leaves a level of index.levels=4"):
        fit_product(clusters, levels=4, codes=5, width=3, seed=0)
    with pytest.raises(ConfigError, match="width=21 exceeds"):
        fit_product(clusters, levels=4, codes=5, width=21, seed=0)
