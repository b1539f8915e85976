"""Schedules of ads: which of the scheduled rows are within their times, and which boundaries pass as time goes on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HORIZON_US = 3600 * 1_000_000
"""Boundaries of the next hour are looked for once, so that a moment later only these are compared (ours)."""
ALWAYS = np.iinfo(np.int64)
"""Its `min` is a start that was always, its `max` an end that is never."""


class Schedule:
    """Starts and ends of those rows that have any; 20 bytes a row. Times are int64 microseconds.

    `start` puts it at an instant, `advance` moves it on.
    """

    def __init__(self) -> None:
        self._rows = np.empty(0, np.int32)
        self._starts_us, self._ends_us = np.empty(0, np.int64), np.empty(0, np.int64)
        self._from_us = self._at_us = self._until_us = 0
        self._soon = np.empty(0, np.int64)

    @property
    def rows(self) -> Ints:
        """The scheduled rows, int64[n], ascending."""
        return self._rows.astype(np.int64)

    def replace(self, rows: Ints, starts_us: Ints, ends_us: Ints) -> None:
        """Set the times of different rows; one without any bound is not scheduled. `start` must follow."""
        bounded = (starts_us != ALWAYS.min) | (ends_us != ALWAYS.max)
        if not bounded.any() and not self._rows.size:
            return
        stays = ~np.isin(self._rows, rows)
        merged = np.concatenate([self._rows[stays], rows[bounded].astype(np.int32)])
        order = np.argsort(merged, kind="stable")
        self._rows = merged[order]
        self._starts_us = np.concatenate([self._starts_us[stays], starts_us[bounded]])[order]
        self._ends_us = np.concatenate([self._ends_us[stays], ends_us[bounded]])[order]

    def moved(self, rows: Ints) -> Schedule:
        """Return the schedule under other row numbers: what each of `self.rows` became, ascending."""
        moved = Schedule()
        moved.replace(rows, self._starts_us, self._ends_us)
        return moved

    def start(self, now_us: int) -> Bools:
        """Return which of `rows` are within their times: from the start, until before the end."""
        self._from_us = self._at_us = now_us
        self._until_us = now_us + HORIZON_US
        self._soon = np.flatnonzero(self._passed(slice(None), now_us, self._until_us))
        return self._within(slice(None), now_us)

    def advance(self, now_us: int) -> tuple[Ints, Bools] | None:
        """Move to another instant, before or after.

        Returns:
            None when no boundary was passed; else the rows to look at again, and which of them are within their times.
        """
        if now_us == self._at_us:
            return None
        if not self._from_us <= now_us <= self._until_us:
            return self.rows, self.start(now_us)
        low, high = sorted((self._at_us, now_us))
        self._at_us = now_us
        passed = self._soon[self._passed(self._soon, low, high)]
        return (self._rows[passed].astype(np.int64), self._within(passed, now_us)) if passed.size else None

    def _within(self, which: slice | Ints, now_us: int) -> Bools:
        within: Bools = (self._starts_us[which] <= now_us) & (now_us < self._ends_us[which])
        return within

    def _passed(self, which: slice | Ints, low_us: int, high_us: int) -> Bools:
        starts, ends = self._starts_us[which], self._ends_us[which]
        passed: Bools = ((starts > low_us) & (starts <= high_us)) | ((ends > low_us) & (ends <= high_us))
        return passed
