"""Simulated bids: for ads without a real one, so that business alignment has an eCPM to learn. LEADRE §4.3.2; ours."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from leadre.store.importers.prices import MarketPrices
from leadre.store.records.bulk import staged
from leadre.store.records.tables import ads


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """How many ads have a simulated bid now, how many of these changed, and how many have a real one."""

    simulated: int
    changed: int
    real: int


def simulate_bids(connection: Connection, prices: MarketPrices, *, seed: int) -> Priced:
    """Give every ad without a real bid one drawn from market prices. Drawing again by the same seed changes nothing.

    Args:
        connection: in a transaction.
        prices: of a market.
        seed: another one, other bids.
    """
    ad_ids = list(connection.scalars(select(ads.c.ad_id).where(ads.c.bid_simulated).order_by(ads.c.ad_id)))
    rows = zip(ad_ids, prices.draw(ad_ids, seed=seed).tolist(), strict=True)
    with staged(connection, ads, ("ad_id", "bid"), rows) as source:
        changed = connection.execute(
            text(
                f"UPDATE ads SET bid = drawn.bid, created_at = now() FROM {source.name} AS drawn "  # noqa: S608 - ours
                "WHERE ads.ad_id = drawn.ad_id AND ads.bid <> drawn.bid"
            )
        ).rowcount
    everything = connection.scalar(select(func.count()).select_from(ads)) or 0
    return Priced(simulated=len(ad_ids), changed=changed, real=everything - len(ad_ids))
