"""Distribute: tell the refresh queue what each ARPU group is worth and how far down the LLM serves; measure freshness.

LEADRE §4.4.1, Adaptive Resource Distribution. Runs every few seconds: the cut follows the demand, and a queue that
Redis has lost gets its values, floor and budget back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from leadre.retrieval.distribution import adaptive_cut, freshness
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.records.distribution import arpu
from leadre.store.records.distribution.arpu import ArpuGroup

if TYPE_CHECKING:
    from sqlalchemy import Connection

Gauge = tuple[str, tuple[tuple[str, str], ...], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distributed:
    """What the queue was told: the cut, and how the groups stood when they were last made (none before that)."""

    cut: int
    groups: tuple[ArpuGroup, ...]

    def gauges(self) -> list[Gauge]:
        """Return the cut, and users and value of each group, for Prometheus."""
        return [
            ("leadre_arpu_cut", (), float(self.cut)),
            *(_of("leadre_arpu_group_users", group, float(group.users)) for group in self.groups),
            *(_of("leadre_arpu_group_value", group, group.value) for group in self.groups),
        ]


def distribute(connection: Connection, queue: RefreshQueue, *, settings: Settings) -> Distributed:
    """Set values, discount, floor, budget and cut in the queue, as the settings, the groups and the demand say.

    Args:
        connection: in a transaction.
        queue: the refresh queue.
        settings: budget, burst, discount, floor, horizon.

    Raises:
        Unavailable: Redis does not answer.
    """
    groups = tuple(arpu.read_groups(connection))
    if groups:
        queue.set_values([group.value for group in groups], settings.unseen_discount)
    queue.set_floor(settings.floor_share)
    budget = settings.gpu_budget
    queue.set_budget(budget, max(settings.gpu_burst or 2 * budget, settings.refresh_batch))
    stats = queue.stats()
    capacity = budget * settings.cut_horizon_s if budget else np.inf
    cut = adaptive_cut(np.array(stats.depth, np.int64), capacity=capacity, before=stats.cut)
    queue.set_cut(cut)
    return Distributed(cut=cut, groups=groups)


def measure_freshness(connection: Connection, *, now: datetime) -> list[Gauge]:
    """Return the revenue-weighted freshness of all users' lists, and how many users are stale, by group."""
    groups = arpu.read_groups(connection)
    if not groups:
        return []
    stale: Mapping[int, int] = arpu.stale_by_group(connection, now=now)
    fresh = freshness(
        np.array([group.value for group in groups]),
        users=np.array([group.users for group in groups], np.int64),
        stale=np.array([stale.get(group.arpu_group, 0) for group in groups], np.int64),
    )
    counts = [_of("leadre_stale_users", group, float(stale.get(group.arpu_group, 0))) for group in groups]
    return [("leadre_freshness", (), fresh), *counts]


def _of(name: str, group: ArpuGroup, value: float) -> Gauge:
    return name, (("group", str(group.arpu_group)),), value
