from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Domain
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.store.records.catalog import (
    ItemLabel,
    ad_ids_of,
    item_labels,
    live_ad_ids,
    profiles,
    read_ads,
    set_budget_exhausted,
    set_live,
    set_schedule,
    upsert_ads,
    upsert_content_items,
    upsert_users,
)
from leadre.store.records.tables import users

AT = datetime(2025, 3, 4, tzinfo=UTC)


def ad(ad_id: int, second: str = "Skin Care") -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=f"ad {ad_id}",
        name=f"Cream {ad_id}",
        ad_type="product",
        first_category="Beauty",
        second_category=second,
        attributes=("brand_Lu", "50|ml"),
        advertiser_id=4,
        bid=0.25,
        created_at=AT,
    )


def test_ads_come_back_whole_and_by_id(connection: Connection) -> None:
    assert upsert_ads(connection, [ad(9), ad(2), replace(ad(5), live=False)]) == 3
    assert read_ads(connection) == [ad(2), replace(ad(5), live=False), ad(9)]
    assert read_ads(connection, ad_ids=[9, 5, 1]) == [replace(ad(5), live=False), ad(9)]


def test_set_live_changes_what_may_be_retrieved(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(5), ad(9)])
    assert set_live(connection, [5, 9], live=False) == 2
    assert set_live(connection, [9], live=False) == 0
    ids = live_ad_ids(connection, now=AT)
    assert (ids.tolist(), ids.dtype) == ([2], "int64")


def test_set_live_of_an_unknown_ad_changes_nothing(connection: Connection) -> None:
    upsert_ads(connection, [ad(2)])
    with pytest.raises(UnknownAd, match="ad 7 is not in the catalog"):
        set_live(connection, [2, 7], live=False)
    assert live_ad_ids(connection, now=AT).tolist() == [2]


def test_targeting_and_schedule_come_back(connection: Connection) -> None:
    whole = replace(
        ad(2),
        targeting=Targeting.of({"age": [18, 45], "residence": ["Zürich\t|", 'a "b"\\']}),
        starts_at=AT,
        ends_at=AT + timedelta(microseconds=1),
        budget_exhausted=True,
    )
    assert upsert_ads(connection, [whole]) == 1
    assert read_ads(connection) == [whole]
    assert upsert_ads(connection, [whole]) == 0


def test_budgets_and_schedules_change_what_may_be_retrieved(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(5), ad(9)])
    assert set_budget_exhausted(connection, [5, 9], exhausted=True) == 2
    assert set_budget_exhausted(connection, [9], exhausted=False) == 1
    assert live_ad_ids(connection, now=AT).tolist() == [2, 9]
    end = AT + timedelta(hours=1)
    assert set_schedule(connection, [2], starts_at=AT, ends_at=end) == 1
    assert set_schedule(connection, [2], starts_at=AT, ends_at=end) == 0
    shown = {at: live_ad_ids(connection, now=at).tolist() for at in (AT - timedelta(microseconds=1), AT, end)}
    assert list(shown.values()) == [[9], [2, 9], [9]]
    assert set_schedule(connection, [2], starts_at=None, ends_at=None) == 1
    assert live_ad_ids(connection, now=end).tolist() == [2, 9]


def test_an_end_before_the_start_is_refused(connection: Connection) -> None:
    upsert_ads(connection, [ad(2)])
    with pytest.raises(InvalidInput, match="is not after the start"):
        set_schedule(connection, [2], starts_at=AT, ends_at=AT)
    with pytest.raises(InvalidInput, match="ck_ads_schedule"):
        upsert_ads(connection, [replace(ad(2), starts_at=AT, ends_at=AT)])


def test_ads_are_found_by_their_owners_names(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(5)])
    assert ad_ids_of(connection, ["ad 5", "ad 2"]) == [5, 2]
    with pytest.raises(UnknownAd, match="no ad is named 'ad 7'"):
        ad_ids_of(connection, ["ad 5", "ad 7"])


def test_an_empty_catalog_has_no_live_ads(connection: Connection) -> None:
    assert live_ad_ids(connection, now=AT).shape == (0,)


def test_profiles_of_known_users_come_back(connection: Connection) -> None:
    someone = Profile(user_id=3, age=22, sex="male", residence="Haidian, Beijing", arpu=1.5, device="ios")
    upsert_users(connection, [someone, Profile(user_id=4)], event_at=AT)
    assert profiles(connection, [3, 4, 5]) == {3: someone, 4: Profile(user_id=4)}
    assert connection.scalars(select(users.c.source_id).order_by("user_id")).all() == ["3", "4"]


def test_a_new_profile_keeps_the_arpu_group(connection: Connection) -> None:
    upsert_users(connection, [Profile(user_id=3)], event_at=AT, source_ids=["u-3"])
    connection.execute(users.update().values(arpu_group=24))
    upsert_users(connection, [Profile(user_id=3, age=30)], event_at=AT, source_ids=["u-3"])
    assert connection.execute(select(users.c.age, users.c.arpu_group)).one() == (30, 24)


def test_source_ids_must_be_as_many_as_profiles(connection: Connection) -> None:
    with pytest.raises(ValueError, match="zip"):
        upsert_users(connection, [Profile(user_id=3)], event_at=AT, source_ids=["a", "b"])


def test_two_names_with_one_id_are_refused(connection: Connection) -> None:
    with pytest.raises(InvalidInput, match=r"'other' and 'ad 2' of row 1 have one id, 2") as error:
        upsert_ads(connection, [ad(2), ad(3), replace(ad(2), source_id="other")])
    assert (error.value.row, error.value.column) == (3, "ad_id")


def test_an_id_given_twice_is_refused(connection: Connection) -> None:
    with pytest.raises(InvalidInput, match="2 is already in row 1") as error:
        upsert_ads(connection, [ad(2), ad(3), ad(2)])
    assert error.value.row == 3


def test_an_id_that_the_database_knows_by_another_name_is_refused(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(3)])
    with pytest.raises(InvalidInput, match="the database holds 'ad 3' with id 3"):
        upsert_ads(connection, [ad(2), replace(ad(3), source_id="other")])


def test_a_name_that_the_database_knows_by_another_id_is_refused(connection: Connection) -> None:
    upsert_ads(connection, [ad(2)])
    with pytest.raises(InvalidInput, match="the database holds 'ad 2' with id 2"):
        upsert_ads(connection, [replace(ad(4), source_id="ad 2")])


def test_labels_fall_back_to_what_is_there(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(3, second="")])
    items = [
        ContentItem(content_id=6, source_id="c6", title="Night routine", category="Skin Care"),
        ContentItem(content_id=7, source_id="c7", title="", category="Makeup"),
    ]
    upsert_content_items(connection, items)
    assert item_labels(connection, Domain.AD) == {
        2: ItemLabel(title="Cream 2", category="Skin Care"),
        3: ItemLabel(title="Cream 3", category="Beauty"),
    }
    assert item_labels(connection, Domain.CONTENT) == {
        6: ItemLabel(title="Night routine", category="Skin Care"),
        7: ItemLabel(title="Makeup", category="Makeup"),
    }
