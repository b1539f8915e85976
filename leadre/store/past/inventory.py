"""The inventory as of the past, as far as the catalog still knows it. For LEADRE §3.3.

Known are schedules, targeting and since when an ad is there. Not known is which ads were paused or out of budget then:
none counts as such, for what was stopped since was shown before.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sqlalchemy import Connection, text

from leadre.store.records.inventory.rows import InventoryRows, read_inventory


def read_past_inventory(connection: Connection) -> InventoryRows:
    """Read all ads, each as one that runs, within its schedule, from when it became known.

    Args:
        connection: in a transaction.

    Raises:
        Unavailable: PostgreSQL does not answer (from `transaction`).
    """
    rows = read_inventory(connection)
    since = text(
        "SELECT ad_id, (extract(epoch FROM event_at - '2000-01-01 00:00:00+00') * 1000000)::bigint FROM ads ORDER BY 1"
    )
    found = np.fromiter((tuple(row) for row in connection.execute(since)), np.dtype("i8,i8"))
    starts_us = rows.starts_us.copy()
    if len(found):
        place = np.minimum(np.searchsorted(found["f0"], rows.ad_ids), len(found) - 1)
        known = found["f0"][place] == rows.ad_ids
        starts_us[known] = np.maximum(starts_us[known], found["f1"][place[known]])
    return replace(rows, on=np.ones(len(rows.ad_ids), np.bool_), starts_us=starts_us)
