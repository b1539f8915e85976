"""Whole indexes, and new ads in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import add_ads, index_ads, version_of
from leadre.indexing.description import describe
from leadre.indexing.encoder import encode
from leadre.indexing.fit import fit_quantiser
from leadre.indexing.quantiser import Floats, Quantiser
from leadre.recipe import IndexRecipe

RECIPE = IndexRecipe(encoder="hashed", quantiser="residual_kmeans", levels=2, codes=6, width=4)


def embed(ads: list[Ad]) -> Floats:
    return encode([describe(ad) for ad in ads], encoder="hashed")


@pytest.fixture(scope="module")
def quantiser(ads: list[Ad]) -> Quantiser:
    return fit_quantiser(embed(ads), RECIPE)


@pytest.fixture(scope="module")
def index(ads: list[Ad], quantiser: Quantiser) -> AdIndex:
    return index_ads(ads, embed(ads), quantiser, version="v")


def test_every_ad_has_its_own_sid_and_the_order_of_ads_does_not_matter(
    ads: list[Ad], quantiser: Quantiser, index: AdIndex
) -> None:
    assert len(index) == len(ads) == 150
    assert index.quality["max_collision"] > 1  # 36 tuples of codes for 150 ads
    assert index.code_counts == (6, 6, max(8, 2 * index.quality["max_collision"]))
    turned = index_ads(ads[::-1], embed(ads[::-1]), quantiser, version="v")
    np.testing.assert_array_equal(turned.codes, index.codes)
    np.testing.assert_array_equal(turned.ad_ids, index.ad_ids)


def test_new_ads_join_without_changing_any_sid(make_ad: Any, quantiser: Quantiser, index: AdIndex) -> None:
    new = [make_ad(number, first_category="New") for number in range(5, 25)]
    grown = add_ads(index, new, embeddings=embed(new), quantiser=quantiser)
    assert (grown.version, grown.revision, len(grown)) == ("v", 1, 170)
    assert grown.code_counts == index.code_counts
    for ad_id in index.ad_ids.tolist():
        assert grown.sid(ad_id) == index.sid(ad_id)
    rows = grown.rows(np.arange(5, 25))
    assert grown.categories_at(rows)[0] == ["New"] * 20
    np.testing.assert_allclose(grown.embeddings[rows], quantiser.assign(embed(new))[1])
    assert grown.quality["ads"] == 170


def test_an_ad_cannot_join_twice_nor_without_a_code_left(
    make_ad: Any, ads: list[Ad], quantiser: Quantiser, index: AdIndex
) -> None:
    with pytest.raises(InvalidInput, match=f"ad {ads[3].ad_id} is in index v already"):
        add_ads(index, ads[3:4], embeddings=embed(ads[3:4]), quantiser=quantiser)
    alike = [make_ad(number, name="electric car") for number in range(index.code_counts[-1] + 1)]
    same = np.repeat(embed(alike[:1]), len(alike), axis=0)
    with pytest.raises(InvalidInput, match="disambiguation codes"):
        add_ads(index, alike, embeddings=same, quantiser=quantiser)


def test_a_version_names_ads_and_recipe(ads: list[Ad], make_ad: Any) -> None:
    version = version_of(ads, RECIPE)
    assert version == version_of(ads[::-1], RECIPE)
    assert version != version_of(ads[1:], RECIPE)
    assert version != version_of(ads, IndexRecipe(encoder="hashed", seed=1))
    assert version != version_of([make_ad(ads[0].ad_id, name="Tea"), *ads[1:]], RECIPE)
