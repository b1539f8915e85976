from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.category_level import telling_categories


def index_of(first: Sequence[str], second: Sequence[str]) -> AdIndex:
    count = len(first)
    return AdIndex.assemble(
        version="v",
        ad_ids=np.arange(count),
        codes=np.array([(at % 3, at // 3, 0) for at in range(count)], np.int32).reshape(count, 3),
        first_categories=first,
        second_categories=second,
        advertiser_ids=np.zeros(count, np.int64),
        embeddings=np.zeros((count, 2), np.float32),
        code_counts=(3, max(1, count), 1),
        quality={},
    )


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        (["Food", "Games", "Food", "Games"], ["Tea", "Cards", "Rice", "Chess"], "first"),
        (["Beauty"] * 6, ["Skin", "Hair", "Skin", "Hair", "Skin", "Hair"], "second"),
        (
            ["Beauty"] * 40 + ["Food"],
            ["Skin", "Hair"] * 20 + ["Tea"],
            "second",
        ),  # two first ones, and one is nearly all
        ([""] * 6, [""] * 6, "code"),
        (["Food"] * 3, ["Tea"] * 3, "code"),
        ([], [], "first"),
    ],
)
def test_the_shallowest_level_that_tells_ads_apart_is_taken(
    first: Sequence[str], second: Sequence[str], level: str
) -> None:
    assert telling_categories(index_of(first, second)).level == level


def test_second_categories_of_one_name_under_two_first_ones_are_two() -> None:
    index = index_of(["Beauty"] * 30 + ["Food"], ["Other", "Skin"] * 15 + ["Other"])
    found = telling_categories(index)
    assert found.level == "second"
    assert len(np.unique(found.of_rows)) == 3
    assert len(found.of_rows) == len(index)
