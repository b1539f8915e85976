"""Ids: whatever the owner of the data uses outside, 64-bit integers inside. docs/adr/0001.

Outside, a thing is named by a number or a text: its *source id*. Inside (tables, Feast entities, arrays) it has one
64-bit integer, which the source id alone decides: no table has to be asked on the way in.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from numbers import Integral

from leadre.errors import InvalidInput

MAX_ID = 2**63 - 1
MAX_SOURCE_ID = 256
"""Characters of a text that names a thing (ours)."""

_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def stable_id(source_id: str) -> int:
    """Return the id of a thing whose owner names it by text: the same text gives the same id, on every machine.

    The first 63 bits of BLAKE2b of the text in UTF-8. The values are part of the public interface: they are Feast's
    entity keys, and `SELECT` on the owner's side may join on them. They do not change between versions. Among 10
    million ids a collision has probability 5e-6, and an import refuses one by name.

    Args:
        source_id: the owner's own name for the thing, e.g. an ASIN or a UUID.

    Returns:
        An integer in [0, 2^63).
    """
    return int.from_bytes(hashlib.blake2b(source_id.encode(), digest_size=8).digest(), "big") >> 1


def id_of(source_id: int | str) -> int:
    """Return the 64-bit id of a source id.

    A whole number from 0 to 2^63 - 1, also one written as text without sign and leading zeros, is the id itself; any
    other number or text gets `stable_id` of how it is written. So `7` and `"7"` are one id, `"007"` is another.

    Raises:
        InvalidInput: neither a whole number nor a text, or a text that is not one line of 1 to `MAX_SOURCE_ID`
            characters without spaces at its ends.
    """
    if type(source_id) is int and 0 <= source_id <= MAX_ID:
        return source_id
    if isinstance(source_id, bool) or not isinstance(source_id, Integral | str):
        raise InvalidInput(f"{source_id!r} is no id; an id is a whole number or a text")
    text = str(source_id)
    if isinstance(whole := outward(text), int):
        return whole
    if not text or text != text.strip() or len(text) > MAX_SOURCE_ID or _breaks_a_line(text):
        raise InvalidInput(
            f"{text[:40]!r} is no id; a text is one line of 1 to {MAX_SOURCE_ID} characters without spaces at its ends"
        )
    return stable_id(text)


def ids_of(source_ids: Iterable[int | str]) -> list[int]:
    """Return `id_of` of each; whole numbers, as a ranker's 500 candidates may be, pass at once. Raises as `id_of`."""
    return [it if type(it) is int and 0 <= it <= MAX_ID else id_of(it) for it in source_ids]


def outward(source_id: str) -> int | str:
    """Return a source id as its owner writes it: a number where it is one (see `id_of`), the text otherwise."""
    return int(source_id) if _WHOLE.fullmatch(source_id) and int(source_id) <= MAX_ID else source_id


def _breaks_a_line(text: str) -> bool:
    breaking = {"Cc", "Cs", "Zl", "Zp"}  # none of them is printable, which is asked sooner
    return not text.isprintable() and any(unicodedata.category(character) in breaking for character in text)
