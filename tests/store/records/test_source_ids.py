"""The way out: names in memory follow the catalog, and error messages speak the owner's ids."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.identity import MAX_ID, id_of, ids_of, outward
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.source_ids import (
    ad_source_ids,
    holders,
    in_owners_words,
    user_source_ids,
)

AT = datetime(2026, 1, 2, tzinfo=UTC)
ODD = [
    "SKU-1",
    "007",
    "NA",
    "null",
    'a "quoted", name',
    "Größe 7/8",
    "\\N",
    "\\.",
    "日本 \N{SNOWMAN}",
    "-",
    str(2**63),
    "x" * 256,
]
NUMBERS = [0, 7, MAX_ID]


def ad(source_id: int | str) -> Ad:
    return Ad(
        ad_id=id_of(source_id),
        source_id=str(source_id),
        name="Sofa",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=1.0,
        created_at=AT,
    )


def test_texts_and_numbers_come_back_as_they_were_written(connection: Connection) -> None:
    upsert_ads(connection, map(ad, [*ODD, *NUMBERS]))
    asked = [*ids_of(ODD), 8, *NUMBERS]
    assert ad_source_ids(connection, asked) == dict(zip(ids_of([*ODD, *NUMBERS]), [*ODD, *NUMBERS], strict=True))


def test_who_holds_an_id_is_told_by_table(connection: Connection) -> None:
    upsert_ads(connection, [ad("7a"), ad(7)])
    upsert_users(connection, [Profile(user_id=id_of("ann"))], event_at=AT, source_ids=["ann"])
    upsert_content_items(connection, [ContentItem(content_id=7, source_id="7", title="Tea", category="")])
    assert user_source_ids(connection, ids_of(["ann", "bob"])) == {id_of("ann"): "ann"}
    assert holders(connection, ids_of([7, "7a", "ann", 8])) == {
        "ads": {7: 7, id_of("7a"): "7a"},
        "users": {id_of("ann"): "ann"},
        "content_items": {7: 7},
    }


def test_an_error_says_the_owners_ids(connection: Connection) -> None:
    upsert_ads(connection, [ad("SKU-1"), ad(7)])
    upsert_users(connection, [Profile(user_id=id_of("ann"))], event_at=AT, source_ids=["ann"])
    sku, ann = id_of("SKU-1"), id_of("ann")
    unknown = UnknownAd(f"index i{sku}7 has no ad {sku}; user {ann} asked for 7").about(ads=[sku, 7], users=[ann])
    assert in_owners_words(connection, unknown) == f"index i{sku}7 has no ad 'SKU-1'; user 'ann' asked for 7"
    lost = InvalidInput(f"ad {sku + 1} is there twice").about(ads=[sku + 1])
    assert in_owners_words(connection, lost) == str(lost)
    assert outward(str(sku + 1)) == sku + 1  # nobody knows another name
