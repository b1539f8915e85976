"""Codebooks on what SASRec learned: ads that are clicked by the same users share codes, whatever their texts say."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from leadre.collaborative.codebooks import fit_collaborative
from leadre.collaborative.sasrec import SasRec
from leadre.domain.ads import Ad
from leadre.errors import ConfigError, InvalidInput
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.build import add_ads, index_ads
from leadre.recipe import IndexRecipe, SasRecRecipe

RANDOM = np.random.default_rng(4)
GROUP = np.arange(17) % 2
"""Two groups of ads; a user clicks ads of one only."""
KNOWN = 500 + 3 * np.arange(17)
NEW = np.array([400, 401, 777])
IDS = RANDOM.permutation(np.concatenate([KNOWN, NEW]))
RECIPE = IndexRecipe(signal="collaborative", quantiser="residual_kmeans", levels=3, codes=2, width=4)


@pytest.fixture(scope="module")
def sasrec():
    rows = [RANDOM.choice(KNOWN[user % 2 == GROUP], 5, replace=False) for user in range(90)]
    tiny = SasRecRecipe(width=8, layers=1, heads=1, positions=5, epochs=25, learning_rate=1e-2, batch_size=16)
    none = np.full(len(rows), ABSENT)
    return SasRec.fit(Histories.of(rows), targets=none, recipe=tiny, seed=1, device=torch.device("cpu"))


def of_ids(ids):
    """Each ad's group; new ones have none."""
    return np.array([GROUP[np.flatnonzero(ad == KNOWN)[0]] if ad in KNOWN else -1 for ad in ids.tolist()])


def ad(ad_id):
    content = {"source_id": f"{ad_id}", "name": f"thing {ad_id}", "ad_type": "Goods", "first_category": "all"}
    content |= {"second_category": "these", "attributes": (), "advertiser_id": 3, "bid": 1.0}
    return Ad(ad_id=ad_id, created_at=datetime(2025, 6, 1, tzinfo=UTC), **content)


def test_ads_that_the_same_users_click_share_first_codes_although_their_texts_differ(sasrec):
    texts = RANDOM.normal(size=(20, 11)).astype(np.float32)
    quantiser, hidden = fit_collaborative(texts, IDS, sasrec, recipe=RECIPE)
    assert (hidden.shape, hidden.dtype) == ((20, 4), np.float32)
    index = index_ads([ad(one) for one in IDS.tolist()], texts, quantiser, version="v", hidden=hidden)
    groups, first = of_ids(index.ad_ids), index.codes[:, 0]
    assert len({(group, code) for group, code in zip(groups.tolist(), first.tolist(), strict=True) if group >= 0}) == 2
    assert len(set(first[groups >= 0].tolist())) == 2


def test_an_ad_that_no_history_holds_takes_the_place_of_its_text_and_so_does_a_later_one(sasrec):
    centres = RANDOM.normal(size=(2, 11))
    groups = of_ids(IDS)
    groups[groups < 0] = [0, 1, 1]
    texts = (centres[groups] + 0.1 * RANDOM.normal(size=(20, 11))).astype(np.float32)
    quantiser, hidden = fit_collaborative(texts, IDS, sasrec, recipe=RECIPE)
    unknown = of_ids(IDS) < 0
    assert hidden[unknown] == pytest.approx(quantiser.hidden(texts)[unknown], abs=1e-5)
    ads = [ad(one) for one in IDS.tolist()]
    index = index_ads(ads, texts, quantiser, version="v", hidden=hidden)
    codes = dict(zip(index.ad_ids.tolist(), index.codes[:, 0].tolist(), strict=True))
    of_group = {group: codes[one] for group, one in zip(groups.tolist(), IDS.tolist(), strict=True)}
    assert [codes[one] for one in IDS.tolist()] == [of_group[group] for group in groups.tolist()]
    assert of_group[0] != of_group[1]
    later = (centres + 0.1 * RANDOM.normal(size=(2, 11))).astype(np.float32)
    grown = add_ads(index, [ad(800), ad(801)], embeddings=later, quantiser=quantiser)
    assert grown.codes[grown.rows(np.array([800, 801])), 0].tolist() == [of_group[0], of_group[1]]
    assert all(grown.sid(one) == index.sid(one) for one in IDS.tolist())


def test_ads_of_histories_that_the_catalog_lacks_are_passed_over_and_one_text_for_all_is_no_error(sasrec):
    few = np.sort(IDS)[:7]
    quantiser, hidden = fit_collaborative(np.ones((7, 11), np.float32), few, sasrec, recipe=RECIPE)
    assert np.isfinite(hidden).all()
    assert np.isfinite(quantiser.hidden(np.ones((1, 11), np.float32))).all()


def test_more_components_than_sasrec_has_are_refused(sasrec):
    wide = IndexRecipe(signal="collaborative", quantiser="residual_kmeans", width=9)
    with pytest.raises(ConfigError, match=r"index\.width=9 exceeds"):
        fit_collaborative(np.ones((20, 11), np.float32), IDS, sasrec, recipe=wide)


def test_a_catalog_without_any_ad_of_the_histories_is_refused(sasrec):
    strange = np.arange(900, 920)
    with pytest.raises(InvalidInput, match=r"none of the \d+ ads in the histories is in the catalog"):
        fit_collaborative(np.ones((20, 11), np.float32), strange, sasrec, recipe=RECIPE)
