"""Whole indexes, and new ads in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import add_ads, index_ads, version_of
from leadre.indexing.quality import index_quality
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Floats, Quantiser
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.encoder import encode
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


def test_an_index_grown_in_steps_is_the_index_assembled_at_once(
    make_ad: Any, ads: list[Ad], quantiser: Quantiser
) -> None:
    index = index_ads(ads[:90], embed(ads[:90]), quantiser, version="v")
    more = [*ads[90:], *(make_ad(number, first_category=f"C{number % 3}") for number in range(8, 40))]
    for step in (slice(0, 1), slice(1, 33), slice(33, 33), slice(33, None)):
        index = add_ads(index, more[step], embeddings=embed(more[step]), quantiser=quantiser)
    first, second = index.categories_at(np.arange(len(index)))
    whole = AdIndex.assemble(
        version="v",
        revision=4,
        ad_ids=index.ad_ids,
        codes=index.codes,
        first_categories=first,
        second_categories=second,
        advertiser_ids=index.advertiser_ids,
        embeddings=index.embeddings,
        code_counts=index.code_counts,
        quality=index.quality,
    )
    for name in ("ad_ids", "codes", "first_categories", "second_categories", "advertiser_ids", "by_id"):
        np.testing.assert_array_equal(getattr(index, name), getattr(whole, name))
        assert getattr(index, name).dtype == getattr(whole, name).dtype
    assert index.category_names == whole.category_names
    for name, array in whole.trie.arrays().items():
        np.testing.assert_array_equal(index.trie.arrays()[name], array)
    everyone = {ad.ad_id: ad for ad in [*ads[:90], *more]}
    assert first == [everyone[ad_id].first_category for ad_id in index.ad_ids.tolist()]
    assert index.advertiser_ids.tolist() == [everyone[ad_id].advertiser_id for ad_id in index.ad_ids.tolist()]
    anew = index_quality(index.codes[:, :-1], size=6, categories=index.first_categories)
    for name in ("ads", "collision_rate", "duplicate_rate", "max_collision", "usage", "average_usage"):
        assert index.quality[name] == pytest.approx(anew[name])
    assert index.quality["built_ads"] == 90


def test_balanced_ads_share_fewer_codes_and_the_old_ones_stay(ads: list[Ad], quantiser: Quantiser) -> None:
    nearest = index_ads(ads[:30], embed(ads[:30]), quantiser, version="v")
    balanced = index_ads(ads[:30], embed(ads[:30]), quantiser, version="v", assignment="balanced")
    assert balanced.quality["collision_rate"] < nearest.quality["collision_rate"]
    grown = add_ads(balanced, ads[30:36], embeddings=embed(ads[30:36]), quantiser=quantiser, assignment="balanced")
    for ad_id in balanced.ad_ids.tolist():
        assert grown.sid(ad_id) == balanced.sid(ad_id)
    new = grown.codes[grown.rows(np.array([ad.ad_id for ad in ads[30:36]]))]
    prefixes = grown.codes[:, 0].tolist()
    for code, last, slot in new.tolist():  # one that shares its codes does so because all under its prefix are taken
        assert slot == 0 or len(set(grown.codes[grown.codes[:, 0] == code, 1].tolist())) == 6, (code, last, prefixes)
    rows = np.arange(len(grown))
    vectors = quantiser.codebooks[0][grown.codes[rows, 0]] + quantiser.codebooks[1][grown.codes[rows, 1]]
    np.testing.assert_allclose(grown.embeddings, vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda embeddings: embeddings[:, :-1], "embeddings are 255 wide, the quantiser was fitted on 256"),
        (lambda embeddings: np.where(np.arange(len(embeddings))[:, None] == 2, np.nan, embeddings), "row 3: .*finite"),
        (lambda embeddings: embeddings[:-1], "4 embeddings for 5 ads"),
    ],
)
def test_bad_embeddings_are_refused(
    spoil: Any, message: str, ads: list[Ad], make_ad: Any, quantiser: Quantiser, index: AdIndex
) -> None:
    new = [make_ad(number) for number in range(5)]
    with pytest.raises(InvalidInput, match=message):
        index_ads(ads[:5], spoil(embed(ads[:5])), quantiser, version="v")
    with pytest.raises(InvalidInput, match=message):
        add_ads(index, new, embeddings=spoil(embed(new)), quantiser=quantiser)
    assert len(index) == 150


def test_an_ad_twice_among_the_new_ones_is_refused(make_ad: Any, quantiser: Quantiser, index: AdIndex) -> None:
    new = [make_ad(1), make_ad(2), make_ad(1, name="another name")]
    with pytest.raises(InvalidInput, match="ad 1 is there twice"):
        add_ads(index, new, embeddings=embed(new), quantiser=quantiser)
    with pytest.raises(InvalidInput, match="ad 1 is there twice"):
        index_ads(new, embed(new), quantiser, version="v")


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
