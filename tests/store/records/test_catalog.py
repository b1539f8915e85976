from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Domain
from leadre.domain.identity import id_of
from leadre.domain.targeting import Targeting
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.store.records import catalog
from leadre.store.records.catalog import (
    ItemLabel,
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
        source_id=str(ad_id),
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


def test_ads_are_named_as_their_owner_does(connection: Connection) -> None:
    sku, odd = (replace(ad(id_of(name)), source_id=name) for name in ("SKU-1", "Größe 7/8"))
    upsert_ads(connection, [sku, odd, ad(5)])
    assert set_live(connection, ["SKU-1", "5"], live=False) == 2
    assert live_ad_ids(connection, now=AT).tolist() == [odd.ad_id]
    assert set_budget_exhausted(connection, ["Größe 7/8", 5], exhausted=True) == 2
    with pytest.raises(
        UnknownAd, match=r"^ad 'SKU-2' is not in the catalog \(1 of 2 are not there\); import it first$"
    ):
        set_live(connection, ["SKU-1", "SKU-2"], live=True)
    assert live_ad_ids(connection, now=AT).shape == (0,)


def test_an_empty_catalog_has_no_live_ads(connection: Connection) -> None:
    assert live_ad_ids(connection, now=AT).shape == (0,)


def test_profiles_of_known_users_come_back(connection: Connection) -> None:
    someone = Profile(user_id=3, age=22, sex="male", residence="Haidian, Beijing", arpu=1.5, device="ios")
    upsert_users(connection, [someone, Profile(user_id=4)], event_at=AT)
    assert profiles(connection, [3, 4, 5]) == {3: someone, 4: Profile(user_id=4)}
    assert connection.scalars(select(users.c.source_id).order_by("user_id")).all() == ["3", "4"]


def test_a_new_profile_keeps_the_arpu_group(connection: Connection) -> None:
    upsert_users(connection, [Profile(user_id=3)], event_at=AT, source_ids=["3"])
    connection.execute(users.update().values(arpu_group=24))
    upsert_users(connection, [Profile(user_id=3, age=30)], event_at=AT, source_ids=["3"])
    assert connection.execute(select(users.c.age, users.c.arpu_group)).one() == (30, 24)


def test_source_ids_must_be_as_many_as_profiles(connection: Connection) -> None:
    with pytest.raises(ValueError, match="zip"):
        upsert_users(connection, [Profile(user_id=3)], event_at=AT, source_ids=["3", "b"])


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts of one length have one id: nobody knows two texts that collide under BLAKE2b."""
    monkeypatch.setattr(catalog, "id_of", lambda source_id: len(source_id))


def named(source_id: str) -> Ad:
    return replace(ad(len(source_id)), source_id=source_id)


def test_of_two_texts_with_one_id_the_second_is_refused_by_name(connection: Connection, colliding: None) -> None:
    with pytest.raises(InvalidInput, match=r"'SKU-2' and 'SKU-1' of row 1 have one 64-bit id; rename") as error:
        upsert_ads(connection, [named("SKU-1"), named("ab"), named("SKU-2")])
    assert (error.value.row, error.value.column) == (3, "ad_id")


def test_a_text_whose_id_the_database_holds_for_another_one_is_refused(connection: Connection, colliding: None) -> None:
    upsert_ads(connection, [named("ab"), named("SKU-1")])
    with pytest.raises(
        InvalidInput, match="'SKU-2' and 'SKU-1', which the database holds, have one 64-bit id"
    ) as error:
        upsert_ads(connection, [named("ab"), named("SKU-2")])
    assert (error.value.row, error.value.column) == (2, "ad_id")


def test_an_id_given_twice_is_refused_as_its_owner_writes_it(connection: Connection) -> None:
    sku = replace(ad(id_of("SKU-1")), source_id="SKU-1")
    with pytest.raises(
        InvalidInput, match="column 'ad_id': 'SKU-1' is already in row 1; every ad_id appears once"
    ) as e:
        upsert_ads(connection, [sku, ad(3), sku])
    assert e.value.row == 3
    with pytest.raises(InvalidInput, match="3 is already in row 2"):
        upsert_ads(connection, [ad(2), ad(3), ad(3)])


@pytest.mark.parametrize(("ad_id", "source_id"), [(2, "ad 2"), (2, "3"), (2, "02"), (id_of("a"), "b")])
def test_an_id_that_its_source_id_does_not_give_is_refused(connection: Connection, ad_id: int, source_id: str) -> None:
    with pytest.raises(InvalidInput, match=f"row 2, column 'ad_id': {ad_id} is not the id of '{source_id}'"):
        upsert_ads(connection, [ad(7), replace(ad(ad_id), source_id=source_id)])


def test_labels_fall_back_to_what_is_there(connection: Connection) -> None:
    upsert_ads(connection, [ad(2), ad(3, second="")])
    items = [
        ContentItem(content_id=6, source_id="6", title="Night routine", category="Skin Care"),
        ContentItem(content_id=7, source_id="7", title="", category="Makeup"),
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
