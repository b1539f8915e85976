"""Values of a user's own data: what each kind may be, read from a text (CSV) or from Parquet's own type.

Each function here is a parser or makes one; a parser raises ValueError that says what is wrong and what would do.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from leadre.domain.identity import MAX_ID, stable_id
from leadre.domain.targeting import Targeting

MAX_NAME = 256
"""Characters of a name, title or category; a longer one would take a prompt's room."""

LIST_SEPARATOR = "|"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def clean(value: str) -> str:
    """Return a text of one line: control characters become spaces, runs of spaces one, none at the ends."""
    return " ".join(_CONTROL.sub(" ", value).split())


def shown(value: object) -> str:
    """Return a value as an error message shows it: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def words(value: object) -> str:
    """Return a name, title or category, cleaned."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a text")
    cleaned = clean(value)
    if len(cleaned) > MAX_NAME:
        raise ValueError(f"the text is {len(cleaned)} characters long, at most {MAX_NAME} will do; shorten it")
    return cleaned


def name(value: object) -> str:
    """Return `words` that are not only spaces and control characters."""
    if not (cleaned := words(value)):
        raise ValueError("the text has no visible character; every row needs one")
    return cleaned


def word_list(value: object) -> tuple[str, ...]:
    """Return several `words`: a Parquet list, or a text with `|` between them."""
    parts = value.split(LIST_SEPARATOR) if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError(f"{shown(value)} is not a list of texts; write a{LIST_SEPARATOR}b")
    return tuple(cleaned for part in parts if (cleaned := words(part)))


def identity(value: object) -> tuple[int, str]:
    """Return (id, source id): a whole number is itself; any other text gets the id `stable_id` derives from it."""
    text = value if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{shown(value)} is neither a whole number nor a text")
    if _WHOLE.fullmatch(text):
        number = int(text) if len(text) <= 20 else MAX_ID + 1
        if not 0 <= number <= MAX_ID:
            raise ValueError(f"{shown(text)} is not from 0 to 2^63 - 1; give it a letter to make it a text")
        return number, text
    if text != clean(text) or len(text) > MAX_NAME:
        raise ValueError(f"an id is one line of at most {MAX_NAME} characters, without spaces at its ends")
    return stable_id(text), text


def number(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of finite numbers from `low` to `high`."""

    def parse(value: object) -> float:
        parsed = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                parsed = float(value)
            except (ValueError, OverflowError):
                parsed = math.nan
        if not low <= parsed <= high:
            raise ValueError(f"{shown(value)} is not a number from {low:g} to {high:g}")
        return parsed

    return parse


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a Parquet column of whole numbers and gaps is often one of floats
        text = str(value)
        if isinstance(value, bool) or not _WHOLE.fullmatch(text) or len(text) > 20 or not low <= int(text) <= high:
            raise ValueError(f"{shown(value)} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def moment(value: object) -> datetime:
    """Return a time in UTC: ISO 8601 with an offset, Unix seconds, or a Parquet timestamp with a time zone."""
    if isinstance(value, str):
        value = _number_or_time(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = _EARLIEST.timestamp(), _LATEST.timestamp()
        if not low <= value < high:
            raise ValueError(
                f"{shown(value)} is not in Unix seconds of the years 1970 to 2099; are these milliseconds?"
            )
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        raise ValueError(f"{shown(value)} is not a time; write 2025-06-01T12:30:00+00:00 or Unix seconds")
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no UTC offset; write {value.isoformat()}+00:00 if it is UTC")
    if not _EARLIEST <= value < _LATEST:
        raise ValueError(f"{value.isoformat()} is not in the years 1970 to 2099")
    return value.astimezone(UTC)


def _number_or_time(text: str) -> float | datetime:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a time; write 2025-06-01T12:30:00+00:00 or Unix seconds") from None


def yes_no(value: object) -> bool:
    """Return a truth value: true, yes or 1; false, no or 0."""
    parsed = _YES_NO.get(str(value).lower())
    if parsed is None:
        raise ValueError(f"{shown(value)} is not one of {', '.join(_YES_NO)}")
    return parsed


def targeting(value: object) -> Targeting:
    """Return a targeting from its JSON text."""
    try:
        plain = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{shown(value)} is not JSON ({error}); write {{"age": [18, 45]}}') from None
    return Targeting.of(plain)


def choice(options: type[StrEnum]) -> Callable[[object], StrEnum]:
    """Return a parser of an enumeration's words."""

    def parse(value: object) -> StrEnum:
        try:
            return options(str(value))
        except ValueError:
            close = difflib.get_close_matches(str(value), list(options), n=1)
            hint = f"did you mean {str(close[0])!r}? " if close else ""
            raise ValueError(f"{shown(value)} is unknown; {hint}known are {', '.join(options)}") from None

    return parse
