"""Reading the inventory: whole, changes, some ads. tests/retrieval/test_inventory.py has what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, text

from leadre.domain.ads import Ad
from leadre.domain.targeting import EVERYBODY, NOBODY, Targeting
from leadre.store.records.catalog import set_live, upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.inventory.rows import microseconds, read_inventory

AT = datetime(2025, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
WOMEN = Targeting.of({"sex": ["female"]})
PLAIN = Ad(
    ad_id=2,
    source_id="2",
    name="An ad",
    ad_type="",
    first_category="",
    second_category="",
    attributes=(),
    advertiser_id=0,
    bid=1.0,
    created_at=AT,
)
ADS = (
    replace(PLAIN, ad_id=2**62, source_id=str(2**62), targeting=WOMEN, starts_at=AT),
    PLAIN,
    replace(PLAIN, ad_id=3, source_id="3", live=False, ends_at=AT, targeting=WOMEN),
    replace(PLAIN, ad_id=4, source_id="4", budget_exhausted=True),
)


@pytest.fixture
def filled(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    with transaction(engine) as connection:
        upsert_ads(connection, ADS)
    yield engine
    engine.dispose()


def test_every_column_comes_back(filled: Engine) -> None:
    with transaction(filled) as connection:
        rows = read_inventory(connection)
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    assert rows.whole
    assert rows.ad_ids.tolist() == [2, 3, 4, 2**62]
    assert rows.on.tolist() == [True, False, False, True]
    assert rows.starts_us.tolist() == [least, least, least, microseconds(AT)]
    assert rows.ends_us.tolist() == [most, microseconds(AT), most, most]
    assert [rows.targetings[code] for code in rows.targeting] == [EVERYBODY, WOMEN, EVERYBODY, WOMEN]
    assert len(rows.targetings) == 2


def test_only_changes_are_read_from_a_cursor_on(filled: Engine) -> None:
    with transaction(filled) as connection:
        cursor = read_inventory(connection).cursor
    with transaction(filled) as connection:
        set_live(connection, [2, 4], live=False)
    with transaction(filled) as connection:
        rows = read_inventory(connection, since=cursor)
    assert (rows.ad_ids.tolist(), rows.whole) == ([2, 4], False)
    with transaction(filled) as connection:
        assert read_inventory(connection, since=rows.cursor).ad_ids.shape == (0,)


def test_after_a_deletion_the_whole_inventory_is_read(filled: Engine) -> None:
    with transaction(filled) as connection:
        cursor = read_inventory(connection).cursor
        connection.execute(text("DELETE FROM ads WHERE ad_id = 3"))
    with transaction(filled) as connection:
        rows = read_inventory(connection, since=cursor)
    assert (rows.ad_ids.tolist(), rows.whole) == ([2, 4, 2**62], True)
    with transaction(filled) as connection:
        assert not read_inventory(connection, since=rows.cursor).whole


def test_ads_can_be_read_by_id(filled: Engine) -> None:
    with transaction(filled) as connection:
        rows = read_inventory(connection, ad_ids=np.array([4, 7, 2], np.int64))
        assert (rows.ad_ids.tolist(), rows.whole) == ([2, 4], False)
        assert read_inventory(connection, ad_ids=np.empty(0, np.int64)).ad_ids.shape == (0,)


def test_infinite_times_and_an_unreadable_targeting_are_defined(connection: Connection) -> None:
    upsert_ads(connection, [PLAIN])
    connection.execute(text("UPDATE ads SET starts_at = '-infinity', ends_at = 'infinity', targeting = '[]'"))
    rows = read_inventory(connection)
    assert (rows.starts_us[0], rows.ends_us[0]) == (np.iinfo(np.int64).min, np.iinfo(np.int64).max)
    assert rows.targetings == (NOBODY,)


def test_times_are_exact_to_the_microsecond() -> None:
    assert microseconds(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert microseconds(AT + timedelta(microseconds=1)) == microseconds(AT) + 1


def test_what_the_version_before_writes_is_seen(filled: Engine) -> None:
    """It knows none of the new columns; the defaults and the triggers stand in."""
    with transaction(filled) as connection:
        cursor = read_inventory(connection).cursor
    with transaction(filled) as connection:
        connection.execute(text("INSERT INTO ads (ad_id, source_id, name, event_at) VALUES (9, 'new', 'New', now())"))
        connection.execute(text("UPDATE ads SET live = false WHERE ad_id = 2"))
    with transaction(filled) as connection:
        rows = read_inventory(connection, since=cursor)
    assert (rows.ad_ids.tolist(), rows.on.tolist()) == ([2, 9], [False, True])
    assert rows.targetings == (EVERYBODY,)
