"""The way out: names in memory follow the catalog, and error messages speak the owner's ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.identity import MAX_ID, id_of, ids_of, outward
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.database import connect, transaction
from leadre.store.records.source_ids import (
    AdNames,
    ad_source_ids,
    holders,
    in_owners_words,
    read_ad_names,
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


def test_an_empty_catalog_knows_no_name(connection: Connection) -> None:
    names = read_ad_names(connection)
    assert names.of([7, id_of("SKU-1")]) == [None, None]
    assert AdNames().of([]) == []
    assert read_ad_names(connection, known=names).of([7]) == [None]


def test_texts_and_numbers_come_back_as_they_were_written(connection: Connection) -> None:
    upsert_ads(connection, map(ad, [*ODD, *NUMBERS]))
    names = read_ad_names(connection)
    asked = [*ids_of(ODD), 8, *NUMBERS]
    assert names.of(asked) == [*ODD, None, *NUMBERS]
    assert names.of(asked[::-1]) == [*ODD, None, *NUMBERS][::-1]
    assert names.of(np.array(asked, np.int64)) == names.of(asked)  # type: ignore[arg-type]
    assert all(type(name) is not np.int64 for name in names.of(NUMBERS))
    assert ad_source_ids(connection, asked) == dict(zip(ids_of([*ODD, *NUMBERS]), [*ODD, *NUMBERS], strict=True))


@given(
    rounds=st.lists(
        st.lists(st.one_of(st.integers(0, 40), st.integers(0, 40).map("SKU-{}".format)), max_size=9), max_size=4
    )
)
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_what_changed_is_as_good_as_reading_all(connection: Connection, rounds: list[list[int | str]]) -> None:
    connection.execute(text("DELETE FROM ads"))
    names, there = AdNames(), set()
    for number, some in enumerate(rounds):
        different = list(dict.fromkeys(some))
        upsert_ads(connection, [replace(ad(name), name=f"Sofa {number}") for name in different])
        there.update(different)
        names = read_ad_names(connection, known=names)
        asked = [*range(42), *(f"SKU-{n}" for n in range(42))]
        assert names.of(ids_of(asked)) == [name if name in there else None for name in asked]
        assert names.ad_ids.tolist() == sorted(ids_of(there)) == read_ad_names(connection).ad_ids.tolist()


@pytest.fixture
def committing(database_url: str) -> Iterator[Engine]:
    """A database in which every transaction of a test ends: what changed since then is known by its number."""
    database = connect(database_url)
    yield database
    database.dispose()


def test_only_what_changed_is_read_and_a_slow_writer_is_not_missed(committing: Engine) -> None:
    with transaction(committing) as connection:
        upsert_ads(connection, [ad("SKU-1"), ad(7)])
    with transaction(committing) as connection:
        first = read_ad_names(connection)
    with committing.connect() as slow, slow.begin():
        upsert_ads(slow, [ad("slow")])  # begun before the next reading, committed after it
        with transaction(committing) as connection:
            upsert_ads(connection, [ad("SKU-2")])
        with transaction(committing) as connection:
            second = read_ad_names(connection, known=first)
    with transaction(committing) as connection:
        third = read_ad_names(connection, known=second)
        connection.execute(text("DELETE FROM ads WHERE source_id = 'SKU-1'"))
    asked = ids_of(["SKU-1", 7, "SKU-2", "slow"])
    assert first.of(asked) == ["SKU-1", 7, None, None]
    assert second.of(asked) == ["SKU-1", 7, "SKU-2", None]
    assert third.of(asked) == ["SKU-1", 7, "SKU-2", "slow"]
    with transaction(committing) as connection:
        assert read_ad_names(connection, known=third).of(asked) == ["SKU-1", 7, "SKU-2", "slow"]  # a name is for good
        assert read_ad_names(connection).of(asked) == [None, 7, "SKU-2", "slow"]


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
