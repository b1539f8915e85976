"""Simulated bids: only ads without a real one get them, and everything made from them says so."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, func, select

from leadre.domain.ads import Ad
from leadre.store.importers.bids import Priced, simulate_bids
from leadre.store.importers.prices import MarketPrices
from leadre.store.records.catalog import read_ads, upsert_ads
from leadre.store.records.tables import ads as ads_table

PRICES = MarketPrices(bids=np.arange(2.0, 90.0), counts=np.ones(88, np.int64))


def ad(number: int, *, bid: float, simulated: bool) -> Ad:
    return Ad(
        ad_id=number,
        source_id=str(number),
        name=f"ad {number}",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=0,
        bid=bid,
        bid_simulated=simulated,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_real_bids_stay_and_the_others_are_drawn_once_a_seed(connection: Connection) -> None:
    upsert_ads(connection, [ad(1, bid=1.0, simulated=False), *(ad(n, bid=1.0, simulated=True) for n in (2, 3, 4))])
    assert simulate_bids(connection, PRICES, seed=7) == Priced(simulated=3, changed=3, real=1)
    found = {each.ad_id: each for each in read_ads(connection)}
    assert (found[1].bid, found[1].bid_simulated) == (1.0, False)
    assert [found[n].bid for n in (2, 3, 4)] == PRICES.draw([2, 3, 4], seed=7).tolist()
    assert all(found[n].bid_simulated for n in (2, 3, 4))
    assert simulate_bids(connection, PRICES, seed=7) == Priced(simulated=3, changed=0, real=1)
    upsert_ads(connection, [ad(2, bid=0.3, simulated=False)])  # its owner says what it bids
    assert simulate_bids(connection, PRICES, seed=8).simulated == 2
    assert connection.scalar(select(func.count()).where(ads_table.c.bid_simulated)) == 2


def test_without_ads_nothing_is_drawn(connection: Connection) -> None:
    assert simulate_bids(connection, PRICES, seed=0) == Priced(simulated=0, changed=0, real=0)
