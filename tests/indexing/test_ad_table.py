"""The table of an index that match scores are made with: finds ads by id, knows what they may share."""

from __future__ import annotations

import numpy as np
import pytest

from leadre.derivation.item_match import match
from leadre.derivation.user_side import derive
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.ad_table import AdTable


@pytest.fixture
def index() -> AdIndex:
    """Two hundred ads with ids of any size; a fifth of them without a category."""
    rng = np.random.default_rng(1)
    number = np.arange(200)
    return AdIndex.assemble(
        version="v1",
        ad_ids=np.concatenate((number[:100], rng.integers(2**62, 2**63 - 1, 100))),
        codes=np.stack([number % 5, number // 5, np.zeros_like(number)], axis=1).astype(np.int32),
        first_categories=["" if n % 5 == 0 else f"first {n % 5}" for n in number],
        second_categories=["same"] * 200,
        advertiser_ids=number % 3,
        embeddings=rng.normal(size=(200, 4)).astype(np.float32),
        code_counts=(5, 40, 1),
        quality={},
    )


def test_ads_are_found_where_the_index_has_them(index: AdIndex) -> None:
    table = AdTable.of(index)
    asked = np.concatenate((index.ad_ids[::-1], [12345, 2**63 - 1]))
    assert np.array_equal(table.rows(asked), index.rows(asked))
    assert table.rows(np.empty(0, np.int64)).tolist() == []


def test_scores_by_the_table_are_those_of_the_index(index: AdIndex) -> None:
    table, rows = AdTable.of(index), index.rows(np.array([3, 8, 10]))
    lists = derive(
        counts=[3],
        ad_ids=index.ad_ids[rows],
        log_probabilities=np.zeros(3),
        codes=index.codes[rows],
        first_categories=index.first_categories[rows],
        second_categories=index.second_categories[rows],
        category_names=index.category_names,
        advertiser_ids=index.advertiser_ids[rows],
        embeddings=index.embeddings[rows],
        ecpms=np.ones(3),
        generated_at_s=0.0,
        behavior_at_s=0.0,
        release="r",
        index_version="v1",
    )
    ads = np.array([3, 13, 10, 999])
    found = match(
        lists,
        table.targets,
        list_of_row=np.zeros(4, np.int64),
        ad_of_row=ads,
        target_of_row=table.rows(ads),
        request_time_s=1.0,
    )
    third = pytest.approx(1 / 3)
    assert found["rank"].tolist() == [1, 0, 3, 0]
    assert found["first_category_mass"].tolist() == [pytest.approx(2 / 3)] * 2 + [0.0, 0.0]  # "" is no category
    assert found["second_category_mass"].tolist() == [pytest.approx(2 / 3)] * 2 + [0.0, 0.0]
    assert found["advertiser_mass"].tolist() == [0.0, third, third, 0.0]  # advertiser 0 is unknown
    assert found["longest_shared_prefix"].tolist() == [2, 1, 2, 0]
    assert found["max_cosine"][[0, 2]].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_no_index_knows_no_ad() -> None:
    table = AdTable.empty()
    assert (table.version, table.rows(np.array([1, 2])).tolist()) == ("", [-1, -1])
