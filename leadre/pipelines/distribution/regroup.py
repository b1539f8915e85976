"""Regroup: users into ARPU groups, and what each group is worth, once a day. LEADRE §4.4.1, §5.4."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from leadre.retrieval.distribution import group_values
from leadre.store.records.distribution import arpu
from leadre.store.records.distribution.arpu import ARPU_GROUPS, MARGIN, ArpuGroup

if TYPE_CHECKING:
    from sqlalchemy import Connection

EVERY = timedelta(hours=23)
"""Groups younger than this stay (ours): an hourly job makes them anew once a day."""
SMOOTHING = 0.5
"""Weight of today's mean ARPU in a group's value (ours); the rest is yesterday's value."""


def regroup(connection: Connection, *, now: datetime, margin: float = MARGIN, smoothing: float = SMOOTHING) -> int:
    """Group all users by ARPU and write what each group is worth.

    Args:
        connection: in a transaction.
        now: written beside the values.
        margin: as `leadre.store.records.distribution.arpu.group_by_arpu`.
        smoothing: as `leadre.retrieval.distribution.group_values`.

    Returns:
        Of how many users the group changed.
    """
    changed = arpu.group_by_arpu(connection, margin=margin)
    found = arpu.mean_arpus(connection)
    users = np.array([found.get(group, (0, 0.0))[0] for group in range(ARPU_GROUPS)], np.int64)
    means = np.array([found.get(group, (0, 0.0))[1] for group in range(ARPU_GROUPS)], np.float64)
    before = arpu.read_groups(connection)
    values = group_values(
        means,
        users,
        before=np.array([group.value for group in before]) if before else None,
        smoothing=smoothing,
    )
    groups = [
        ArpuGroup(arpu_group=group, users=count, mean_arpu=mean, value=value)
        for group, (count, mean, value) in enumerate(zip(users.tolist(), means.tolist(), values.tolist(), strict=True))
    ]
    arpu.write_groups(connection, groups, now=now)
    return changed


def regroup_if_due(
    connection: Connection, *, now: datetime, margin: float = MARGIN, smoothing: float = SMOOTHING
) -> int:
    """Regroup when the groups are a day old, or some users are in none yet. As `regroup`; 0 when it is not due."""
    last = arpu.grouped_at(connection)
    if last is not None and timedelta() <= now - last < EVERY and not arpu.any_ungrouped(connection):
        return 0
    return regroup(connection, now=now, margin=margin, smoothing=smoothing)
