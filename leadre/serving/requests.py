"""What comes in from outside: ids, limits and bodies, checked before anything else sees them.

Caps at the edge keep one request from costing more than its share: a body ends at 64 KiB.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request

from leadre.domain.identity import id_of, outward
from leadre.errors import InvalidInput

MAX_BODY_BYTES = 64 * 1024
MAX_LIMIT = 1000
DEFAULT_LIMIT = 20
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


def user_of(request: Request) -> tuple[int, int | str]:
    """Return the path's user: the 64-bit id, and the id as the caller gave it.

    Raises:
        HTTPException: the user's place in the path holds a slash that is not written %2F (404).
        InvalidInput: as `user_in`.
    """
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    users, segment, _ = raw.removeprefix(request.scope.get("root_path", "").encode()).rsplit(b"/", 2)
    if users != b"/v1/users":
        raise HTTPException(404)
    return user_in(segment)


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


async def body_of(request: Request) -> bytes:
    """Read the body, but never more than `MAX_BODY_BYTES` of it.

    Raises:
        HTTPException: there is more (413), or it is compressed (415).
    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) not in {"identity", ""}:
        raise HTTPException(415, f"a body in content-encoding {shortened(encoding)} is not read; send it plain")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer behaviors at once")
    return bytes(body)


def shortened(value: object, *, longest: int = 40) -> str:
    """Return a value as an error names it, cut after `longest` characters."""
    written = repr(value[: longest + 1] if isinstance(value, str) else value)
    return written if len(written) <= longest else f"{written[:longest]}…"
