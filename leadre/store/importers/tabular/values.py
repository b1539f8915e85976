"""Values of a user's own data: what each kind may be, read from a text (CSV) or from Parquet's own type.

Each function here is a parser or makes one; a parser raises `BadValue` that says what is wrong and what would do.
leadre.store.importers.tabular.times reads times.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from leadre.domain.identity import id_of
from leadre.domain.targeting import Targeting
from leadre.errors import InvalidInput
from leadre.names import did_you_mean
from leadre.store.importers.tabular.rejected import BadValue, Kind

MAX_NAME = 256
"""Characters of a name, title or category; a longer one would take a prompt's room."""

LIST_SEPARATOR = "|"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL_COMMA = re.compile(r"-?[0-9]+,[0-9]+", re.ASCII)
_WORD_ROOM = 32
_LOOKED_AT = 64 * MAX_NAME  # characters of a text, its spaces included: cleaning a megabyte would take a second
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


CUT = f"texts of more than {MAX_NAME} characters, cut"
"""Mark of a text that was cut."""


class Marked(NamedTuple):
    """A value that was read, but not as it stands: `mark` says what was done, and the import counts it."""

    value: Any
    mark: str


def clean(value: str) -> str:
    """Return a text of one line: control characters become spaces, runs of spaces one, none at the ends."""
    return " ".join(_CONTROL.sub(" ", value).split())


def shown(value: object) -> str:
    """Return a value as an error message shows it: quoted, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def words(value: object) -> str:
    """Return a name, title or category, cleaned."""
    cleaned = _cleaned(value)
    if len(cleaned) > MAX_NAME or len(str(value)) > _LOOKED_AT:
        length = len(str(value)) if len(str(value)) > _LOOKED_AT else len(cleaned)
        raise BadValue(
            Kind.TOO_LONG,
            f"the text is {length} characters long, at most {MAX_NAME} will do; shorten it, or give --long-texts cut",
        )
    return cleaned


def cut_words(value: object) -> str | Marked:
    """Return `words`, but of one that is too long the beginning: whole words if the last is short, whole characters."""
    cleaned = _cleaned(value)
    if len(cleaned) <= MAX_NAME:
        return cleaned
    end = cleaned.rfind(" ", MAX_NAME - _WORD_ROOM, MAX_NAME + 1)
    if end < 0:
        end = MAX_NAME
        while end > MAX_NAME - _WORD_ROOM and _inside_character(cleaned[end - 1], cleaned[end]):
            end -= 1
    return Marked(cleaned[:end], CUT)


def _cleaned(value: object) -> str:
    if not isinstance(value, str):
        raise BadValue(Kind.BAD_TEXT, f"{shown(value)} is not a text")
    return clean(value[:_LOOKED_AT])


def _inside_character(before: str, after: str) -> bool:
    """Return whether two code points belong to what a reader sees as one character (most, not all, of UAX 29)."""
    joiner, regional, skins = "\u200d", range(0x1F1E6, 0x1F200), range(0x1F3FB, 0x1F400)
    return (
        unicodedata.category(after) in ("Mn", "Me", "Mc")
        or joiner in (before, after)
        or ord(after) in skins
        or (ord(before) in regional and ord(after) in regional)
    )


def name(read: Callable[[object], str | Marked]) -> Callable[[object], str | Marked]:
    """Return a parser of `words` (or `cut_words`) that are not only spaces and control characters."""

    def parse(value: object) -> str | Marked:
        if not (cleaned := read(value)):
            raise BadValue(Kind.MISSING_VALUE, "the text has no visible character; every row needs one")
        return cleaned

    return parse


def word_list(read: Callable[[object], str | Marked]) -> Callable[[object], tuple[str, ...] | Marked]:
    """Return a parser of several `words` (or `cut_words`): a Parquet list, or a text with `|` between them."""

    def parse(value: object) -> tuple[str, ...] | Marked:
        parts = value.split(LIST_SEPARATOR) if isinstance(value, str) else value
        if not isinstance(parts, list):
            raise BadValue(Kind.BAD_LIST, f"{shown(value)} is not a list of texts; write a{LIST_SEPARATOR}b")
        found = [cleaned for part in parts if (cleaned := read(part))]
        texts = tuple(part.value if isinstance(part, Marked) else part for part in found)
        return Marked(texts, CUT) if any(isinstance(part, Marked) for part in found) else texts

    return parse


def identity(value: object) -> tuple[int, str]:
    """Return (id, source id), see leadre.domain.identity."""
    try:
        return id_of(value), str(value)  # type: ignore[arg-type]  # what is neither is what it refuses
    except InvalidInput as error:
        raise BadValue(Kind.BAD_ID, error.problem) from None


def number(low: float, high: float) -> Callable[[object], float]:
    """Return a parser of finite numbers from `low` to `high`."""

    def parse(value: object) -> float:
        parsed = math.nan
        if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
            try:
                parsed = float(value)
            except (ValueError, OverflowError):
                parsed = math.nan
        if not low <= parsed <= high:
            comma = isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value)
            hint = "; write a decimal point, not a comma" if comma else ""
            raise BadValue(Kind.BAD_NUMBER, f"{shown(value)} is not a number from {low:g} to {high:g}{hint}")
        return parsed

    return parse


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a Parquet column of whole numbers and gaps is often one of floats
        text = str(value)
        if isinstance(value, bool) or not _WHOLE.fullmatch(text) or len(text) > 20 or not low <= int(text) <= high:
            raise BadValue(Kind.BAD_NUMBER, f"{shown(value)} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def yes_no(value: object) -> bool:
    """Return a truth value: true, yes or 1; false, no or 0."""
    parsed = _YES_NO.get(str(value).lower())
    if parsed is None:
        raise BadValue(Kind.BAD_YES_NO, f"{shown(value)} is not one of {', '.join(_YES_NO)}")
    return parsed


def targeting(value: object) -> Targeting:
    """Return a targeting from its JSON text."""
    try:
        plain = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        problem = f'{shown(value)} is not JSON ({error}); write {{"age": [18, 45]}}'
        raise BadValue(Kind.BAD_TARGETING, problem) from None
    try:
        found = Targeting.of(plain)
    except InvalidInput as error:
        raise BadValue(Kind.BAD_TARGETING, str(error)) from None
    if any("\0" in text or not _encodes(text) for _, texts in found.accepted for text in texts):
        raise BadValue(Kind.BAD_TARGETING, "a text holds a NUL or half of a surrogate pair; remove it")
    return found


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def choice(options: type[StrEnum]) -> Callable[[object], StrEnum]:
    """Return a parser of an enumeration's words."""

    def parse(value: object) -> StrEnum:
        try:
            return options(str(value))
        except ValueError:
            hint = did_you_mean(str(value), map(str, options))
            problem = f"{shown(value)} is unknown; {hint}known are {', '.join(options)}"
            raise BadValue(Kind.UNKNOWN_CHOICE, problem) from None

    return parse
