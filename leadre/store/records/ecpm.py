"""eCPM of ads, revenue per 1,000 impressions: the one definition that training, evaluation and features share.

LEADRE §4.3.2, §5.2.3. An ad's eCPM is the mean over its logged impressions. One never shown has its bid (currency
units a click) x 1,000 x the click rate that the log implies: what shown ads earn a unit of their bids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Double, Numeric, Subquery, cast, exists, func, or_, select

from leadre.store.records.tables import ad_earnings, ads, impressions

EXPECTED_CLICK_RATE = 0.01
"""Clicks an impression where the log holds none to tell (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EcpmLog:
    """What ads earned, in 16 bytes a shown ad.

    Args:
        ad_ids: of the ads that were shown, ascending, int64[n].
        means: their eCPMs, float64[n].
        click_rate: expected of an ad that was not, in clicks an impression.
    """

    ad_ids: NDArray[np.int64]
    means: NDArray[np.float64]
    click_rate: float

    def ecpm_of(self, bids: Mapping[int, float]) -> dict[int, float]:
        """Return the eCPM of each ad, in currency units per 1,000 impressions.

        Args:
            bids: of the ads asked for, in currency units a click.
        """
        asked = np.fromiter(bids, np.int64, len(bids))
        worth = 1000 * self.click_rate * np.fromiter(bids.values(), np.float64, len(bids))
        place = np.searchsorted(self.ad_ids, asked)
        inside = np.flatnonzero(place < len(self.ad_ids))
        shown = inside[self.ad_ids[place[inside]] == asked[inside]]
        worth[shown] = self.means[place[shown]]
        return dict(zip(bids, worth.tolist(), strict=True))


def read_ecpm_log(connection: Connection, *, before: datetime | None = None) -> EcpmLog:
    """Read what every ad of the catalog earned.

    Args:
        connection: to the system of record.
        before: later impressions do not count: one pass over the others. None: all count, by the sums that
            `ad_earnings` keeps of them.

    Raises:
        Unavailable: PostgreSQL does not answer (from `transaction`).
    """
    shown = _earnings(before)
    rows = connection.execute(
        select(ads.c.ad_id, shown.c.ecpm, ads.c.bid).join(shown, ads.c.ad_id == shown.c.ad_id).order_by(ads.c.ad_id)
    )
    found = np.fromiter((tuple(row) for row in rows), np.dtype("i8,f8,f8"))
    means, paid = found["f1"].astype(np.float64), float(found["f2"].sum())
    return EcpmLog(
        ad_ids=found["f0"].astype(np.int64),
        means=means,
        click_rate=float(means.sum()) / paid / 1000 if paid else EXPECTED_CLICK_RATE,
    )


def _earnings(before: datetime | None) -> Subquery:
    """Return each shown ad with its eCPM. Sums are exact, so both ways give the same bits."""
    if before is None:
        columns = ad_earnings.c
        mean = (cast(columns.ecpm_sum, Double) / columns.impressions).label("ecpm")
        return select(columns.ad_id, mean).where(columns.impressions > 0).subquery()
    mean = (cast(func.sum(cast(impressions.c.ecpm, Numeric)), Double) / func.count()).label("ecpm")
    passed = select(impressions.c.ad_id, mean).where(impressions.c.occurred_at < before)
    return passed.group_by(impressions.c.ad_id).subquery()


def read_ecpm(connection: Connection, ad_ids: list[int], *, log: EcpmLog) -> dict[int, float]:
    """Return the eCPM of some ads by their present bids, those left out that the catalog does not hold."""
    bids = connection.execute(select(ads.c.ad_id, ads.c.bid).where(ads.c.ad_id == func.any(ad_ids)))
    return log.ecpm_of({row.ad_id: row.bid for row in bids})


def ecpm_is_simulated(connection: Connection) -> bool:
    """Return whether eCPMs rest on anything but real ones: figures made from them say so.

    True where an impression's eCPM or an ad's bid is simulated, and where no impression tells a click rate.
    """
    either = or_(
        exists().where(impressions.c.simulated),
        exists().where(ads.c.bid_simulated),
        ~exists(select(impressions.c.impression_id)),
    )
    return connection.scalar(select(either)) or False
