"""Times of a user's own data: ISO 8601, numbers since 1970, or Parquet's own type; local ones in a known time zone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from leadre.store.importers.tabular.options import TimeUnit
from leadre.store.importers.tabular.rejected import BadValue, Kind
from leadre.store.importers.tabular.values import Marked, shown

AMBIGUOUS = "local times that the clocks showed twice, read as the earlier"
"""Mark of a time in the hour that the end of summer time repeats."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_LOOKED_AT = 1000
_WRITE = "write 2025-06-01T12:30:00+00:00 or Unix seconds"


class TimeReader:
    """Reads the times of one column.

    Args:
        unit: of numbers; `auto` takes what fits most of the numbers that `look` sees first.
        zone: of times without an offset; None: they are bad. In the hour that the end of summer time repeats, the
            earlier is meant; one in the hour that its beginning skips is bad, as no clock ever showed it.
        first: no time is before this.
        last: nor after this; both are aware.
        bounds: the two in words.
    """

    def __init__(
        self,
        *,
        unit: TimeUnit = "auto",
        zone: ZoneInfo | None = None,
        first: datetime = _FIRST,
        last: datetime = _END - timedelta(microseconds=1),
        bounds: str = "in the years 1970 to 2099",
    ) -> None:
        self.unit: TimeUnit | None = None if unit == "auto" else unit
        self._saw_numbers = self._saw_local = False
        self._zone, self._first, self._last, self._bounds = zone, first, last, bounds
        self._guessed = unit == "auto"

    def look(self, values: Iterable[object]) -> None:
        """Tell the unit of numbers, once: of the first values, what most of those that are numbers have."""
        if self.unit is None:
            units = Counter(
                unit for value in islice(values, _LOOKED_AT) if (unit := _unit_of(_number(value))) is not None
            )
            if units:
                self.unit = units.most_common(1)[0][0]

    def facts(self) -> list[str]:
        """Return what was recognised or assumed, in words."""
        how = "recognised by their size; --time-unit sets it" if self._guessed else "--time-unit"
        facts = [f"numbers are Unix {_UNITS[self.unit]} ({how})"] if self.unit and self._saw_numbers else []
        return facts + ([f"times without an offset are of {self._zone}"] if self._saw_local else [])

    def __call__(self, value: object) -> datetime | Marked:
        """Return the instant in UTC.

        Raises:
            BadValue: it is none, has no offset, or is out of bounds.
        """
        number = _number(value)
        if number is not None:
            self._saw_numbers = True
            return self._bounded(self._instant(number, value), value)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise BadValue(Kind.BAD_TIME, f"{shown(value)} is not a time; {_WRITE}") from None
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            raise BadValue(Kind.BAD_TIME, f"{shown(value)} is not a time; {_WRITE}")
        if value.tzinfo is not None:
            return self._bounded(value, value)
        if self._zone is None:
            raise BadValue(
                Kind.BAD_TIME,
                f"{value.isoformat()} has no UTC offset; write {value.isoformat()}+00:00 if it is UTC, or give "
                "--time-zone Europe/Berlin if it is local time there",
            )
        self._saw_local = True
        local = value.replace(tzinfo=self._zone)
        before, after = local.utcoffset(), local.replace(fold=1).utcoffset()
        if before == after or before is None or after is None:
            return self._bounded(local, value)
        if before < after:
            problem = f"{value.isoformat()} never was in {self._zone}: the clocks skip it; is it another time zone?"
            raise BadValue(Kind.BAD_TIME, problem)
        return Marked(self._bounded(local, value), AMBIGUOUS)

    def _instant(self, number: float, value: object) -> datetime:
        seconds = number / _PER_SECOND[self.unit or "s"]
        if not 0 <= seconds < _END.timestamp():
            problem = f"{shown(value)} is not in Unix {_UNITS[self.unit or 's']} of the years 1970 to 2099"
            fitting = _unit_of(number)
            hint = f"; are these {_UNITS[fitting]}? --time-unit {fitting}" if fitting else f"; {_WRITE}"
            raise BadValue(Kind.BAD_TIME, problem + hint)
        if isinstance(number, int):
            return _EPOCH + timedelta(microseconds=number * (1_000_000 // _PER_SECOND[self.unit or "s"]))
        return datetime.fromtimestamp(seconds, UTC)

    def _bounded(self, at: datetime, value: object) -> datetime:
        if not self._first <= at <= self._last:
            said = value.isoformat() if isinstance(value, datetime) else f"{shown(value)} ({at.isoformat()})"
            raise BadValue(Kind.BAD_TIME, f"{said} is not {self._bounds}")
        return at.astimezone(UTC)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        if value[4:5] == "-":  # 2025-06-01, what most are
            return None
        if _WHOLE.fullmatch(value):
            return int(value)
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _unit_of(number: float | None) -> TimeUnit | None:
    """Return the unit in which a number is of the years 1970 to 2099, the coarsest of several."""
    units: tuple[TimeUnit, ...] = ("s", "ms", "us")
    for unit in units:
        if number is not None and 0 <= number < _END.timestamp() * _PER_SECOND[unit]:
            return unit
    return None
