"""The ads in memory follow the catalog: names, pauses, budgets, schedules, deletions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from sqlalchemy import text

from leadre.domain.ads import Ad
from leadre.domain.identity import id_of
from leadre.errors import Unavailable
from leadre.serving import ad_catalog
from leadre.serving.ad_catalog import AdCatalog
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, transaction

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
    "x" * 256,
    7,
]


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


@pytest.fixture
def run(settings: Settings) -> Callable[..., None]:
    database = connect(settings.database_url)

    def statement(sql: str, **values: object) -> None:
        with transaction(database) as connection:
            connection.execute(text(sql), values)

    with transaction(database) as connection:
        upsert_ads(connection, map(ad, ODD))
    return statement


def shown(catalog: AdCatalog, *source_ids: int | str, at: datetime = AT) -> list[int | str | None]:
    return list(catalog.shown([id_of(each) for each in source_ids], now_s=at.timestamp()).names)


def test_nothing_is_known_before_the_first_read(settings: Settings) -> None:
    catalog = AdCatalog.over(settings.database_url)
    assert not catalog.known
    with pytest.raises(Unavailable, match="the ads are not read yet"):
        catalog.shown([1], now_s=0)
    catalog.load()  # an empty catalog is one
    assert catalog.shown([7, 8], now_s=0).unnamed == 2


def test_texts_and_numbers_come_back_as_they_were_written(settings: Settings, run: Callable[..., None]) -> None:
    catalog = AdCatalog.over(settings.database_url)
    catalog.load()
    assert shown(catalog, *ODD, 8) == [*ODD, None]
    assert catalog.of([id_of(each) for each in reversed(ODD)]) == ODD[::-1]


def test_pauses_budgets_schedules_new_ads_and_deletions_arrive_with_the_next_read(
    settings: Settings, run: Callable[..., None]
) -> None:
    catalog = AdCatalog.over(settings.database_url)
    catalog.load()
    assert shown(catalog, "SKU-1", 7, "NA", "null") == ["SKU-1", 7, "NA", "null"]
    run("UPDATE ads SET live = false WHERE source_id = 'SKU-1'")
    run("UPDATE ads SET budget_exhausted = true WHERE source_id = '7'")
    run("UPDATE ads SET starts_at = :at WHERE source_id = 'NA'", at=AT + timedelta(milliseconds=500))
    run("UPDATE ads SET ends_at = :at WHERE source_id = 'null'", at=AT + timedelta(seconds=2))
    catalog.load()
    assert shown(catalog, "SKU-1", 7, "NA", "null") == [None, None, None, "null"]
    assert shown(catalog, "NA", "null", at=AT + timedelta(seconds=1)) == ["NA", "null"]
    assert shown(catalog, "null", at=AT + timedelta(seconds=2)) == [None]
    assert catalog.shown([id_of("NA"), id_of("null")], now_s=AT.timestamp()).until_s == AT.timestamp() + 1
    version = catalog.version
    run("UPDATE ads SET live = true, budget_exhausted = false, starts_at = '-infinity', ends_at = 'infinity'")
    run("DELETE FROM ads WHERE source_id = '-'")
    catalog.load()
    assert shown(catalog, "SKU-1", 7, "NA", "null", "-") == ["SKU-1", 7, "NA", "null", None]
    assert catalog.version > version


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "pause", "resume", "delete", "read"]), st.integers(0, 11)), max_size=25
)


@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, laid_over=st.integers(0, 4))
def test_after_any_changes_a_read_shows_what_the_table_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]], laid_over: int
) -> None:
    monkeypatch.setattr(ad_catalog, "_LAID_OVER", laid_over)
    monkeypatch.setattr(ad_catalog, "_SEEN", laid_over)
    database = connect(settings.database_url)
    with transaction(database) as connection:
        connection.execute(text("DELETE FROM ads"))
    catalog = AdCatalog.over(settings.database_url)
    catalog.load()
    live: dict[int | str, bool] = {}
    for what, number in [*steps, ("read", 0)]:
        source_id = ODD[number]
        with transaction(database) as connection:
            if what == "add" and source_id not in live:
                upsert_ads(connection, [ad(source_id)])
                live[source_id] = True
            elif what == "delete":
                connection.execute(text("DELETE FROM ads WHERE source_id = :it"), {"it": str(source_id)})
                live.pop(source_id, None)
            elif what in ("pause", "resume") and source_id in live:
                live[source_id] = what == "resume"
                values = {"it": str(source_id), "live": live[source_id]}
                connection.execute(text("UPDATE ads SET live = :live WHERE source_id = :it"), values)
        if what == "read":
            catalog.load()
            assert shown(catalog, *ODD) == [each if live.get(each) else None for each in ODD]
    database.dispose()


def test_a_read_of_what_was_read_before_changes_nothing(settings: Settings, run: Callable[..., None]) -> None:
    catalog = AdCatalog.over(settings.database_url)
    for _ in range(3):
        catalog.load()
    run("UPDATE ads SET name = 'Chair' WHERE source_id = '7'")  # nothing of what is kept here
    catalog.load()
    version = catalog.version
    for _ in range(3):
        catalog.load()
    assert catalog.version == version
