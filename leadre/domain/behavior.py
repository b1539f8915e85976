"""Behaviors: what a user did, in the ad domain and in the content domain. LEADRE §3.1, §4.2.1 (4, 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Domain(StrEnum):
    """Where a behavior took place."""

    AD = "ad"
    CONTENT = "content"


class Action(StrEnum):
    """What the user did."""

    IMPRESSION = "impression"
    CLICK = "click"
    CONVERSION = "conversion"
    WATCH = "watch"
    SEARCH = "search"
    SKIP = "skip"


POSITIVE = frozenset({Action.CLICK, Action.CONVERSION, Action.WATCH, Action.SEARCH})
"""Only these enter prompts (§4.2.1: clicks and conversions; full watches and searches)."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""No behavior or impression is older: an earlier time is a broken clock or a wrong unit."""

LATEST_AHEAD = timedelta(days=1)
"""How far after the present a behavior or impression may be: clocks differ, and so do time zones."""

WINDOW_DAYS = 90
"""How long a behavior counts in summaries and prompts (paper: 90 days)."""


def window_start(now: datetime, *, days: int) -> datetime:
    """Return from when behaviors count at `now`: the window is the day of `now` in UTC, and `days` days before it.

    Whole days (ours): so what is known of a user ages at midnights only.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight - timedelta(days=days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """One behavior of one user.

    `item_id` is an ad id or a content id by `domain`. Behaviors of a user are ordered by (`occurred_at`, `ordinal`):
    `ordinal` orders what happened in the same instant (sources with day resolution have many of these).
    """

    user_id: int
    domain: Domain
    action: Action
    item_id: int
    occurred_at: datetime
    ordinal: int = 0

    @property
    def positive(self) -> bool:
        """Whether the behavior shows interest."""
        return self.action in POSITIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """One display of an ad to a user, with what came of it. LEADRE §4.3.2: where preference pairs come from.

    `ecpm` is revenue per 1,000 impressions in currency units, as the ranking phase estimated it; `simulated` says that
    it is not a real one.
    """

    user_id: int
    ad_id: int
    occurred_at: datetime
    ecpm: float
    clicked: bool = False
    converted: bool = False
    simulated: bool = False
