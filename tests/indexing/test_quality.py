from __future__ import annotations

import json

import numpy as np
import pytest

from leadre.errors import InvalidInput
from leadre.indexing import quality as module
from leadre.indexing.build import Assignment, index_ads
from leadre.indexing.quality import index_quality, mutual_information_bits, variance_explained, warning_of
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import quantise
from leadre.recipe import IndexRecipe
from leadre.synthetic import make_world

CODES = np.array([[0, 1], [0, 1], [0, 2], [3, 1], [3, 1], [3, 1], [1, 1]], np.int32)
CATEGORIES = np.array([0, 1, 0, 2, 2, 2, 0], np.int32)


def test_table_5s_figures_by_hand() -> None:
    quality = index_quality(CODES, size=4, categories=CATEGORIES)
    assert quality["ads"] == 7
    assert quality["collision_rate"] == pytest.approx(5 / 7)  # (0, 1) twice and (3, 1) three times
    assert quality["duplicate_rate"] == pytest.approx(3 / 7)  # four different tuples
    assert quality["max_collision"] == 3
    assert quality["usage"] == [0.75, 0.5]
    assert quality["average_usage"] == pytest.approx(0.625)
    shares = np.array([3, 3, 1]) / 7
    assert quality["entropy_bits"][0] == pytest.approx(-(shares * np.log2(shares)).sum())
    # level 1: 2 of 3, 3 of 3, 1 of 1; level 2: 1 of 2, 1, 3, 1
    assert quality["category_purity"] == pytest.approx([6 / 7, 6 / 7])
    assert "variance_explained" not in quality
    assert json.loads(json.dumps(quality)) == quality


def test_mutual_information_by_hand() -> None:
    codes, categories = np.repeat(np.int32([0, 1]), 8), np.repeat(np.int32([0, 1]), 8)
    # 1 + 1 - 1 bits, and (2 - 1) + (2 - 1) - (2 - 1) cells over 2 x 16 nats
    assert mutual_information_bits(codes, categories, size=2) == pytest.approx(1 + 1 / (32 * np.log(2)))
    assert mutual_information_bits(codes, np.zeros(16, np.int32), size=2) == 0


def test_the_correction_takes_chance_out_of_rare_pairs() -> None:
    random = np.random.default_rng(0)
    codes, categories = random.integers(0, 100, (2, 40_000), dtype=np.int32)
    assert mutual_information_bits(codes, categories, size=100) < 0.02  # 0.18 without it


def test_variance_explained_by_hand() -> None:
    codebooks = np.array([[[0, 0], [4, 0]], [[0, 1], [0, -1]]], np.float32)
    hidden = np.array([[0, 1], [4, -1], [4, 3]], np.float32)
    codes, _ = quantise(hidden, codebooks)
    # mean [8/3, 1]: 64/9 + 16/9 + 4 + 16/9 + 4 = 56/3; level 1 leaves 1 + 1 + 9, level 2 0 + 0 + 4
    assert variance_explained(codes, hidden, codebooks) == pytest.approx([1 - 33 / 56, 1 - 12 / 56])
    quality = index_quality(codes, size=2, categories=np.zeros(3, np.int32), hidden=hidden, codebooks=codebooks)
    assert quality["variance_explained"] == pytest.approx([1 - 33 / 56, 1 - 12 / 56])
    assert variance_explained(codes[:1], hidden[:1], codebooks) == [0.0, 0.0]


def test_sorting_counts_like_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = index_quality(CODES, size=4, categories=CATEGORIES)
    monkeypatch.setattr(module, "_CELLS", 1)
    assert index_quality(CODES, size=4, categories=CATEGORIES) == expected


def test_codes_beyond_63_bits_are_counted_too() -> None:
    wide = np.concatenate([CODES, np.full((7, 6), 1023, np.int32)], axis=1)
    quality = index_quality(wide, size=1024, categories=CATEGORIES)
    assert (quality["collision_rate"], quality["max_collision"]) == (pytest.approx(5 / 7), 3)
    assert quality["category_purity"] == pytest.approx([6 / 7] * 8)


def test_one_ad_collides_with_none_and_no_ads_are_refused() -> None:
    quality = index_quality(np.array([[2, 2, 2]], np.int32), size=5, categories=np.zeros(1, np.int32))
    assert (quality["collision_rate"], quality["max_collision"], quality["entropy_bits"]) == (0.0, 1, [0.0, 0.0, 0.0])
    with pytest.raises(InvalidInput, match="without ads"):
        index_quality(np.empty((0, 3), np.int32), size=5, categories=np.empty(0, np.int32))


def test_the_largest_group_that_differs_in_the_last_code_only_by_hand() -> None:
    quality = index_quality(CODES, size=4, categories=CATEGORIES)
    assert quality["last_code_only"] == pytest.approx(3 / 7)  # first code 0, or 3
    one_level = index_quality(CODES[:, :1], size=4, categories=CATEGORIES)
    assert one_level["last_code_only"] == pytest.approx(3 / 7)  # there is no code before the last


@pytest.mark.parametrize("assignment", ["nearest", "balanced"])
def test_ads_of_one_text_are_warned_about_and_ads_that_differ_are_not(assignment: Assignment) -> None:
    ads = list(make_world(ads=120, users=1).ads)
    different = np.random.default_rng(0).standard_normal((120, 16)).astype(np.float32)
    warnings = []
    for embeddings in (np.ones_like(different), different):
        quantiser = fit_quantiser(embeddings, IndexRecipe(quantiser="residual_kmeans", levels=3, codes=16, width=8))
        index = index_ads(ads, embeddings, quantiser, version="v", assignment=assignment)
        warnings.append(warning_of(index.quality))
    assert warnings[1] is None
    assert warnings[0] is not None
    assert warnings[0].startswith("100% of the ads differ from each other in the last code only (the bound is 20%)")
    assert "import names, categories and attributes" in warnings[0]


def test_many_small_groups_of_one_text_are_warned_about_too() -> None:
    codes = np.repeat(np.stack([np.arange(40), np.arange(40) % 7], axis=1), 2, axis=0).astype(np.int32)
    warning = warning_of(index_quality(codes, size=40, categories=np.zeros(80, np.int32)))
    assert warning is not None
    assert warning.startswith("100% of the ads share all their codes with another one (the bound is 50%)")
