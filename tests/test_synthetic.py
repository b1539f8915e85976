"""The made-up world is reproducible, consistent, and as learnable as it says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from leadre.domain.behavior import Domain
from leadre.errors import InvalidInput
from leadre.synthetic import CATALOGUE, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=3, ads=130, users=150, sessions=7, slate=5)


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world: World) -> None:
    again = make_world(seed=3, ads=130, users=150, sessions=7, slate=5)
    assert again.behaviors == world.behaviors
    assert again.ads == world.ads
    assert make_world(seed=4, ads=130, users=150, sessions=7, slate=5).behaviors != world.behaviors


def test_every_behavior_names_an_ad_a_content_item_and_a_user_that_exist(world: World) -> None:
    ads, content = {ad.ad_id for ad in world.ads}, {item.content_id for item in world.content_items}
    users = {profile.user_id for profile in world.profiles}
    for behavior in world.behaviors:
        assert behavior.user_id in users
        assert behavior.item_id in (ads if behavior.domain is Domain.AD else content)
        assert behavior.occurred_at <= world.now


def test_a_slate_never_shows_an_ad_twice(world: World) -> None:
    shown = Counter((i.user_id, i.occurred_at, i.ad_id) for i in world.impressions)
    assert max(shown.values()) == 1
    assert len(world.impressions) == 150 * 7 * 5


def test_every_second_level_category_has_ads_of_its_first_level_category(world: World) -> None:
    for ad in world.ads:
        assert ad.second_category in CATALOGUE[ad.first_category]
    assert {ad.second_category for ad in world.ads} == {s for by_second in CATALOGUE.values() for s in by_second}


def test_what_a_user_watched_last_predicts_the_next_clicked_ad_far_better_than_popularity(world: World) -> None:
    """The world's point: content-domain intent decides ad clicks (the right answer a recommender can find)."""
    by_user: dict[int, list[tuple[str, int]]] = {}
    for behavior in sorted(world.behaviors, key=lambda b: (b.user_id, b.occurred_at)):
        if behavior.positive:
            by_user.setdefault(behavior.user_id, []).append((behavior.domain, behavior.item_id))
    clicks = Counter(item for events in by_user.values() for domain, item in events if domain is Domain.AD)
    most_popular = clicks.most_common(1)[0][0]
    guessed, popular = [], []
    for events in by_user.values():
        products = None
        for domain, item in events:
            if domain is Domain.CONTENT:
                products = item // 6
            elif products is not None:
                guessed.append(world.truth.ad_product[item] == products)
                popular.append(item == most_popular)
    assert np.mean(guessed) > 0.5
    assert np.mean(guessed) > 5 * np.mean(popular)


def test_a_world_smaller_than_its_products_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 96 ads"):
        make_world(ads=10)
