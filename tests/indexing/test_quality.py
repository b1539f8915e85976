from __future__ import annotations

import json

import numpy as np
import pytest

from leadre.indexing.quality import index_quality


def test_table_5s_figures_by_hand() -> None:
    codes = np.array([[0, 1], [0, 1], [0, 2], [3, 1], [3, 1], [3, 1], [1, 1]], np.int32)
    categories = np.array([0, 1, 0, 2, 2, 2, 0], np.int32)
    quality = index_quality(codes, size=4, categories=categories)
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
    assert json.loads(json.dumps(quality)) == quality


def test_one_ad_collides_with_none() -> None:
    quality = index_quality(np.array([[2, 2, 2]], np.int32), size=5, categories=np.zeros(1, np.int32))
    assert (quality["collision_rate"], quality["max_collision"], quality["entropy_bits"]) == (0.0, 1, [0.0, 0.0, 0.0])
