"""Lists of the cheap lane on the made-up world: better than popularity, and only of ads that may be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp

import numpy as np
import pytest
from sqlalchemy import Engine

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import hit_ratio, ranks_of
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.cheap_lane import CheapLists, Visits
from leadre.retrieval.inventory import Inventory
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction
from leadre.store.records.distribution.histories import NewestAds, ad_histories, newest_ads
from leadre.synthetic import World, make_world

NOW = datetime(2025, 6, 1, tzinfo=UTC)
WIDTH = 10


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(users=1500, ads=200, seed=3)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


def index_of(ad_ids: list[int], revision: int = 0) -> AdIndex:
    return AdIndex.assemble(
        version="i",
        revision=revision,
        ad_ids=np.array(ad_ids, np.int64),
        codes=np.stack([np.array(ad_ids) % 16, np.array(ad_ids) // 16], axis=1).astype(np.int32),
        first_categories=[""] * len(ad_ids),
        second_categories=[""] * len(ad_ids),
        advertiser_ids=np.zeros(len(ad_ids), np.int64),
        embeddings=np.zeros((len(ad_ids), 2), np.float32),
        code_counts=(16, 64),
        quality={},
    )


def clicks_of(world: World) -> list[Behavior]:
    return [it for it in world.behaviors if it.domain is Domain.AD and it.action in (Action.CLICK, Action.CONVERSION)]


def load(database: Engine, world: World, index: AdIndex) -> Inventory:
    with transaction(database) as connection:
        catalog.upsert_ads(connection, world.ads)
        catalog.upsert_users(connection, world.profiles, event_at=NOW)
        events.upsert_behaviors(connection, clicks_of(world), arrived_at=NOW)
    return refreshed(database, index)


def refreshed(database: Engine, index: AdIndex) -> Inventory:
    inventory = Inventory(index)
    with transaction(database) as connection:
        inventory.refresh(connection)
    return inventory


def made(index: AdIndex, visits: Visits) -> CheapLists:
    return CheapLists(index, visits, release="r", release_epoch=3, beam_width=WIDTH)


def counted(database: Engine, until: datetime = NOW) -> Visits:
    with transaction(database) as connection:
        return Visits.count(ad_histories(connection, since=NOW - timedelta(days=90), until=until, most=10**6))


def test_its_lists_hit_the_next_ad_more_often_than_popularity_does(database: Engine, world: World) -> None:
    index = index_of([ad.ad_id for ad in world.ads])
    inventory = load(database, world, index)
    until = NOW - timedelta(days=7)
    lists = made(index, counted(database, until))
    following = {it.user_id: it.item_id for it in reversed(clicks_of(world)) if it.occurred_at > until}
    with transaction(database) as connection:
        asked = newest_ads(connection, list(following), now=until, count=8)
    found = lists.lists(asked, inventory=inventory, now=until)
    popular = lists.lists([replace(user, ad_ids=()) for user in asked], inventory=inventory, now=until)
    targets = np.array(list(following.values()))

    def hits(of: list) -> float:
        ads = np.array([[beam.ad_id for beam in it.beams] for it in of])
        return hit_ratio(ranks_of(targets, ads), WIDTH)

    assert hits(found) > 1.5 * hits(popular) > 0
    assert {it.source for it in popular} == {"popular"}
    assert [it.source for it in found if it.user_id in {user.profile.user_id for user in asked if user.ad_ids}].count(
        "covisitation"
    ) > 0.9 * len(found)


def test_a_list_is_full_normalised_and_says_what_it_rests_on(database: Engine, world: World) -> None:
    index = index_of([ad.ad_id for ad in world.ads])
    inventory = load(database, world, index)
    users = [profile.user_id for profile in world.profiles[:40]]
    with transaction(database) as connection:
        asked = newest_ads(connection, [*users, 10**12], now=NOW, count=8)
    assert asked[-1] == NewestAds(profile=Profile(user_id=10**12), behavior_sequence=0, newest_at=None, ad_ids=())
    for user, found in zip(
        asked, made(index, counted(database)).lists(asked, inventory=inventory, now=NOW), strict=True
    ):
        assert len({beam.ad_id for beam in found.beams}) == WIDTH
        assert sum(exp(beam.log_probability) for beam in found.beams) == pytest.approx(1)
        scores = [beam.log_probability for beam in found.beams]
        assert scores == sorted(scores, reverse=True)
        assert all(beam.sid == index.sid(beam.ad_id) for beam in found.beams)
        assert (found.user_id, found.release, found.release_epoch) == (user.profile.user_id, "r", 3)
        assert (found.behavior_sequence, found.event_at) == (user.behavior_sequence, user.newest_at)
    history = sorted((it.occurred_at, it.ordinal, it.item_id) for it in clicks_of(world) if it.user_id == users[0])
    assert asked[0].ad_ids == tuple(item for *_, item in history[::-1][:8])
    assert asked[0].behavior_sequence == len(history)


def test_only_ads_that_the_user_may_see_and_the_index_holds_are_in_a_list(database: Engine, world: World) -> None:
    index = index_of([ad.ad_id for ad in world.ads][10:])
    load(database, world, index)
    paused = [ad.ad_id for ad in world.ads if ad.ad_id % 3 == 0]
    with transaction(database) as connection:
        catalog.set_live(connection, paused, live=False)
        targeted = [replace(ad, targeting=Targeting.of({"sex": ["male"]})) for ad in world.ads if ad.ad_id % 3 == 1]
        catalog.upsert_ads(connection, targeted)
    lists, inventory = made(index, counted(database)), refreshed(database, index)
    with transaction(database) as connection:
        asked = newest_ads(connection, [profile.user_id for profile in world.profiles[:300]], now=NOW, count=8)
    by_ad = {ad.ad_id: ad for ad in targeted}
    seen = set()
    for user, found in zip(asked, lists.lists(asked, inventory=inventory, now=NOW), strict=True):
        ads = {beam.ad_id for beam in found.beams}
        assert len(ads) == WIDTH
        assert not ads & {*paused, *(ad.ad_id for ad in world.ads[:10])}
        assert user.profile.sex == "male" or not ads & set(by_ad)
        seen |= ads
    assert seen & set(by_ad)


def test_what_a_user_clicked_comes_again_only_where_ads_repeat() -> None:
    index = index_of(list(range(30)))
    once = Histories.of([np.arange(start, start + 5) for start in range(20)])
    twice = Histories.of([np.array([1, 2, 1, 2])] * 5)
    inventory = Inventory(index)
    inventory._on[:] = ~np.uint64(0)
    user = NewestAds(profile=Profile(user_id=1), behavior_sequence=2, newest_at=NOW, ad_ids=(2, 1))
    (bought,) = made(index, Visits.count(once)).lists([user], inventory=inventory, now=NOW)
    assert not {1, 2} & {beam.ad_id for beam in bought.beams}
    assert bought.beams[0].ad_id == 3
    (clicked,) = made(index, Visits.count(twice)).lists([user], inventory=inventory, now=NOW)
    assert {beam.ad_id for beam in clicked.beams} == {1, 2}


def test_without_any_click_or_ad_lists_are_empty() -> None:
    user = NewestAds(profile=Profile(user_id=1), behavior_sequence=0, newest_at=None, ad_ids=(2,))
    for ads in ([], [1, 2]):
        index = index_of(ads)
        for histories in (Histories.of([]), Histories.of([np.array([7, 8])])):
            (found,) = made(index, Visits.count(histories)).lists([user], inventory=Inventory(index), now=NOW)
            assert (found.beams, found.source) == ((), "popular")
