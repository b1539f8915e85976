"""What comes in from outside: ids, limits and bodies, checked before anything else sees them.

Caps at the edge keep one request from costing more than its share: a body ends at 64 KiB.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from leadre.domain.identity import MAX_ID
from leadre.errors import InvalidInput

MAX_BODY_BYTES = 64 * 1024
MAX_LIMIT = 1000
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)


def user_id_of(request: Request) -> int:
    """Return the path's user id.

    Raises:
        InvalidInput: not an integer in [0, 2^63).
    """
    text = request.path_params["user_id"]
    if not _DIGITS.fullmatch(text) or int(text) > MAX_ID:
        raise InvalidInput(f"a user id is an integer from 0 to {MAX_ID}", column="user_id")
    return int(text)


def limit_of(request: Request, *, default: int = 20) -> int:
    """Return the query's `limit`, or `default`.

    Raises:
        InvalidInput: not an integer from 1 to `MAX_LIMIT`.
    """
    text = request.query_params.get("limit", str(default))
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidInput(f"limit is an integer from 1 to {MAX_LIMIT}", column="limit")
    return int(text)


async def body_of(request: Request) -> bytes:
    """Read the body, but never more than `MAX_BODY_BYTES` of it.

    Raises:
        HTTPException: there is more (413).
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer behaviors at once")
    return bytes(body)


async def answer_error(_: Request, error: Exception) -> Response:
    """Answer a request that cannot be served, the problem in `error`: with an HTTP error's own status, else 400."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, status_code=error.status_code)
    return JSONResponse({"error": str(error)}, status_code=400)


ERROR_ANSWERS = {InvalidInput: answer_error, HTTPException: answer_error}
"""For Starlette's `exception_handlers`."""
