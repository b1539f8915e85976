"""eCPM: means of what was logged, bids at the log's click rate elsewhere, in one unit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from leadre.domain.ads import Ad
from leadre.domain.behavior import Impression
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.ecpm import EXPECTED_CLICK_RATE, ecpm_is_simulated, read_ecpm, read_ecpm_log
from leadre.store.records.events import upsert_impressions

NOW = datetime(2025, 3, 4, tzinfo=UTC)


def ad(ad_id: int, *, bid: float, simulated: bool = False) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name=f"ad {ad_id}",
        ad_type="",
        first_category="A",
        second_category="B",
        attributes=(),
        advertiser_id=1,
        bid=bid,
        bid_simulated=simulated,
        created_at=NOW,
    )


def shown(ad_id: int, ecpm: float, *, hour: int = 0, simulated: bool = False) -> Impression:
    return Impression(
        user_id=hour,
        ad_id=ad_id,
        occurred_at=NOW + timedelta(hours=hour),
        ecpm=ecpm,
        clicked=False,
        converted=False,
        simulated=simulated,
    )


def test_a_shown_ad_has_its_mean_and_one_never_shown_its_bid_at_the_logs_click_rate(connection: Connection) -> None:
    upsert_ads(connection, [ad(1, bid=1.5), ad(2, bid=0.5), ad(3, bid=2.0), ad(4, bid=9.0)])
    upsert_impressions(
        connection, [shown(1, 20.0), shown(1, 40.0, hour=1), shown(2, 10.0), shown(77, 5000.0)], arrived_at=NOW
    )
    log = read_ecpm_log(connection)
    assert log.click_rate == pytest.approx(40 / 2 / 1000)  # 30 + 10 for bids of 1.5 + 0.5; ad 77 is in no catalog
    assert read_ecpm(connection, [3, 1, 2, 77], log=log) == {1: 30.0, 2: 10.0, 3: pytest.approx(40.0)}
    assert log.ecpm_of({4: 9.0, 2: 3.0}) == {4: pytest.approx(180.0), 2: 10.0}
    assert log.ecpm_of({}) == {}


def test_what_is_shown_later_is_not_read(connection: Connection) -> None:
    upsert_ads(connection, [ad(1, bid=1.0)])
    upsert_impressions(connection, [shown(1, 20.0), shown(1, 40.0, hour=1)], arrived_at=NOW)
    log = read_ecpm_log(connection, before=NOW + timedelta(minutes=1))
    assert read_ecpm(connection, [1], log=log) == {1: 20.0}


def test_without_impressions_a_bid_is_worth_a_thousand_times_the_expected_click_rate(connection: Connection) -> None:
    upsert_ads(connection, [ad(1, bid=0.7)])
    assert read_ecpm(connection, [1], log=read_ecpm_log(connection)) == {1: pytest.approx(700 * EXPECTED_CLICK_RATE)}


def test_figures_are_simulated_where_bids_impressions_or_the_click_rate_are(connection: Connection) -> None:
    upsert_ads(connection, [ad(1, bid=1.0)])
    assert ecpm_is_simulated(connection)  # nothing tells a click rate
    upsert_impressions(connection, [shown(1, 20.0)], arrived_at=NOW)
    assert not ecpm_is_simulated(connection)
    upsert_impressions(connection, [shown(1, 20.0, hour=1, simulated=True)], arrived_at=NOW)
    assert ecpm_is_simulated(connection)
    upsert_impressions(connection, [shown(1, 20.0, hour=1)], arrived_at=NOW)
    assert not ecpm_is_simulated(connection)
    upsert_ads(connection, [ad(2, bid=1.0, simulated=True)])
    assert ecpm_is_simulated(connection)


@st.composite
def writes(draw: st.DrawFn) -> list[Impression]:
    row = st.builds(shown, st.integers(1, 4), st.floats(0, 1e6), hour=st.integers(0, 3))
    return draw(st.lists(row, max_size=6))


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        writes() | st.sampled_from(["DELETE FROM impressions WHERE ad_id = 1", "TRUNCATE impressions"]), max_size=6
    )
)
def test_the_kept_sums_are_those_of_the_impressions_bit_by_bit(connection: Connection, steps: list[object]) -> None:
    with connection.begin_nested() as undone:
        upsert_ads(connection, [ad(number, bid=number / 7) for number in (1, 2, 3)])
        for step in steps:
            if isinstance(step, str):
                connection.exec_driver_sql(step)
            else:
                upsert_impressions(connection, step, arrived_at=NOW)
        kept, passed = read_ecpm_log(connection), read_ecpm_log(connection, before=NOW + timedelta(days=9))
        undone.rollback()
    np.testing.assert_array_equal(kept.ad_ids, passed.ad_ids)
    np.testing.assert_array_equal(kept.means, passed.means)
    assert kept.click_rate == passed.click_rate
