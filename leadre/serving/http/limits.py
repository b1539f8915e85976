"""What comes in from outside: ids, limits and sizes, checked before anything else sees them.

LEADRE §4.4.1. Caps at the edge keep one request from costing more than its share: a body ends at 64 KiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from leadre.domain.identity import id_of, outward
from leadre.errors import InvalidInput

MAX_BODY_BYTES = 64 * 1024
"""Of a body, where its route says nothing else (ours)."""
MAX_LIMIT = 1000
DEFAULT_LIMIT = 20
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""A request's id that may be logged."""


def user_in(segment: bytes) -> tuple[int, int | str]:
    """Return the user that a path segment names, percent-encoded: the 64-bit id, and the id as the caller gave it.

    Raises:
        InvalidInput: not UTF-8, or no id (`leadre.domain.identity.id_of`).
    """
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{shortened(segment.decode('latin-1'))} is not UTF-8; percent-encode the id's UTF-8 bytes",
            column="user_id",
        ) from None
    try:
        return id_of(text), outward(text)
    except InvalidInput as error:
        raise InvalidInput(error.problem, column="user_id") from None


def limit_in(text: str | None) -> int:
    """Return the `limit` of a query, or `DEFAULT_LIMIT` when it names none.

    Raises:
        InvalidInput: not an integer from 1 to `MAX_LIMIT`.
    """
    if text is None:
        return DEFAULT_LIMIT
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidInput(f"{shortened(text)} is no limit; write an integer from 1 to {MAX_LIMIT}", column="limit")
    return int(text)


def request_id_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request id that headers name; b"" when they name none, or none that is 1 to 64 of [A-Za-z0-9._-]."""
    for name, value in headers:
        if name == b"x-request-id":
            return value if REQUEST_ID.fullmatch(value) else b""
    return b""


def shortened(value: object, *, longest: int = 40) -> str:
    """Return a value as an error names it, cut after `longest` characters."""
    written = repr(value[: longest + 1] if isinstance(value, str) else value)
    return written if len(written) <= longest else f"{written[:longest]}…"
