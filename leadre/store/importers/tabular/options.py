"""Options of an import: what becomes of rows that do not fit, and how foreign files are read. All strict by default."""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from leadre.errors import InvalidInput
from leadre.names import did_you_mean

TimeUnit = Literal["auto", "s", "ms", "us"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How a folder is read.

    Args:
        on_bad_row: `stop` at the first bad row, or `skip` bad rows, which rejected.csv then lists.
        max_bad_share: of a table's rows, 0 to 1; with more bad ones nothing is imported.
        unknown_ads: what becomes of a behavior or impression of an ad that nobody knows: `stop`, `skip` it, or make a
            behavior one of the `content` domain (an impression is skipped). Such rows are not bad ones.
        long_texts: `stop` at a text of more than 256 characters, or `cut` it.
        time_zone: of times without an offset; without one they are bad.
        time_unit: of times that are numbers; `auto` tells by their size.
        encoding: of CSV files, as Python names it; UTF-8 without one.
        columns: the file's name of a column by ours, `user_id` (in every table) or `behaviors.user_id`.
    """

    on_bad_row: Literal["stop", "skip"] = "stop"
    max_bad_share: float = 0.01
    unknown_ads: Literal["stop", "skip", "content"] = "stop"
    long_texts: Literal["stop", "cut"] = "stop"
    time_zone: zoneinfo.ZoneInfo | None = None
    time_unit: TimeUnit = "auto"
    encoding: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_reject(self) -> bool:
        """Whether a row may be left out."""
        return self.on_bad_row == "skip" or self.unknown_ads != "stop"


def read_time_zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone by its name, e.g. `Europe/Berlin`.

    Raises:
        InvalidInput: there is none of that name; the message names near ones.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        by_case = {zone.casefold(): zone for zone in known}
        by_city = {zone.casefold().rpartition("/")[2]: zone for zone in known}
        asked = name.casefold()
        near = [by_case[word] for word in difflib.get_close_matches(asked, by_case, n=3, cutoff=0.75)]
        near = near or [by_city[word] for word in difflib.get_close_matches(asked, by_city, n=3, cutoff=0.75)]
        hint = f"did you mean {', '.join(near)}?" if near else "names are like Europe/Berlin"
        raise InvalidInput(f"there is no time zone {name!r}; {hint}") from None


def read_encoding(name: str) -> str:
    """Return the name of a text encoding, if it is one.

    Raises:
        InvalidInput: Python knows none of that name.
    """
    try:
        "a".encode(name)
    except (LookupError, ValueError, UnicodeError):
        raise InvalidInput(
            f"there is no text encoding {name[:60]!r}; usual ones are utf-8, latin-1, cp1252, utf-16"
        ) from None
    return name


def read_columns(texts: Collection[str], known: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the file's name of a column by ours, from texts like `user_id=uid,behaviors.item_id=ad`.

    Args:
        texts: comma-separated pairs, ours on the left.
        known: our columns by table.

    Raises:
        InvalidInput: a text is no pair, or names a column that no table has, or one twice.
    """
    ours = {name for columns in known.values() for name in columns}
    ours |= {f"{table}.{name}" for table, columns in known.items() for name in columns}
    renamed: dict[str, str] = {}
    for pair in (pair for text in texts for pair in text.split(",")):
        name, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals or not name or not theirs:
            raise InvalidInput(f"{pair!r} renames no column; write OURS=THEIRS, e.g. user_id=uid")
        if name not in ours:
            hint = did_you_mean(name, sorted(ours))
            raise InvalidInput(f"no table has a column {name!r}; {hint}ours stands on the left, as in user_id=uid")
        if name in renamed:
            raise InvalidInput(f"the column {name!r} is renamed twice, to {renamed[name]!r} and {theirs!r}")
        renamed[name] = theirs
    return renamed
