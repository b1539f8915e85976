"""What an index lacks, and who may change it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.indexes import ad_blocks, ads_without_sid, lock_index, recorded_ads, recorded_size
from leadre.store.release.records import record_index
from leadre.synthetic import make_world

ADS = sorted(make_world(seed=1, ads=96, users=3, sessions=2, slate=2).ads, key=lambda ad: ad.ad_id)[:11]


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    with transaction(made) as connection:
        upsert_ads(connection, ADS)
    yield made
    made.dispose()


def record(connection: Connection, version: str, ad_ids: list[int]) -> None:
    record_index(connection, version, uri="", recipe={}, quality={"ads": len(ad_ids)})
    for ad_id in ad_ids:
        row = {"version": version, "ad_id": ad_id}
        statement = "INSERT INTO semantic_ids VALUES (:version, :ad_id, :ad_id, '{1}', '{1}', now())"
        connection.execute(text(statement), row)


@pytest.mark.parametrize(("size", "sizes"), [(4, [4, 4, 3]), (11, [11]), (50, [11])])
def test_blocks_hold_every_ad_once_by_ascending_id(database: Engine, size: int, sizes: list[int]) -> None:
    with transaction(database) as connection:
        blocks = list(ad_blocks(connection, size=size))
    assert [len(block) for block in blocks] == sizes
    assert [ad for block in blocks for ad in block] == list(ADS)


def test_an_ad_lacks_an_sid_in_one_version_and_has_one_in_another(database: Engine) -> None:
    ad_ids = [ad.ad_id for ad in ADS]
    with transaction(database) as connection:
        record(connection, "i1", ad_ids[:4])
        record(connection, "i2", ad_ids)
        assert ads_without_sid(connection, "i1") == list(ADS[4:])
        assert ads_without_sid(connection, "i2") == []
        assert ads_without_sid(connection, "never") == list(ADS)
        assert recorded_ads(connection, "i1").tolist() == ad_ids[:4]
        assert (recorded_size(connection, "i1"), recorded_size(connection, "never")) == (4, 0)


def test_the_lock_keeps_a_second_process_out_of_one_index_until_the_transaction_ends(database: Engine) -> None:
    happened: list[str] = []

    def wait_and_note() -> None:
        with transaction(database) as connection:
            lock_index(connection, "i1")
            happened.append("second")

    with ThreadPoolExecutor(1) as pool:
        with transaction(database) as connection:
            lock_index(connection, "i1")
            second = pool.submit(wait_and_note)
            with transaction(database) as other:
                lock_index(other, "i2")  # another index is nobody's business
            happened.append("first")
        second.result(timeout=60)
    assert happened == ["first", "second"]
