"""What goes in and out of a route: a request that is read whole, an answer that is bytes, a refusal.

LEADRE §4.4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

JSON = b"application/json"
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_ENCODER = msgspec.json.Encoder()
encode = _ENCODER.encode
"""A contract, or plain values, as JSON."""


class Request:
    """A request, its body read whole within the route's bound.

    Args:
        method: as it was sent.
        target: path and query, as they were sent.
        headers: names in lower case.
        body: no more bytes than the route takes.

    Attributes:
        parameters: the path's parameters, percent-encoded as they were sent. The application sets them.
        request_id: the caller's `X-Request-Id`, or one of ours. The application sets it.
    """

    __slots__ = ("body", "headers", "method", "parameters", "query", "request_id", "target")

    def __init__(self, method: str, target: bytes, *, headers: Headers = (), body: bytes = b"") -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.query = target.partition(b"?")[2] if b"?" in target else b""
        self.parameters: Mapping[str, bytes] = {}
        self.request_id = ""

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of a name, which is written in lower case."""
        for found, value in self.headers:
            if found == name:
                return value
        return None

    def asked(self, name: str) -> str | None:
        """Return the last value of a query parameter; None when it is not there."""
        return query_value(self.query, name)


def query_value(query: bytes, name: str) -> str | None:
    """Return the last value of a parameter in a query string; None when it is not there."""
    if not query:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=None).get(name)
    return values[-1] if values else None


class Answer:
    """An answer, ready to be sent.

    Args:
        body: its bytes.
        status: of HTTP.
        content_type: of the body.
        headers: besides the content's type and length.
        close: whether the connection ends with it.
    """

    __slots__ = ("body", "close", "content_type", "headers", "status")

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        self.body, self.status, self.content_type, self.headers, self.close = body, status, content_type, headers, close


def json_answer(value: Any, *, status: int = 200, headers: Headers = ()) -> Answer:
    """Answer with a contract, or plain values, in JSON."""
    return Answer(encode(value), status=status, headers=headers)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, and how to mend it."""

    error: str


class Refusal(Exception):
    """A request that is not served: its status, and why in words that quote no more than a few characters of it.

    Args:
        status: 400 or more.
        problem: what is wrong and how to mend it.
        headers: of the answer.
        close: whether the connection ends with it, because what follows is not read.
    """

    def __init__(self, status: int, problem: str, *, headers: Headers = (), close: bool = False) -> None:
        super().__init__(problem)
        self.status, self.problem, self.headers, self.close = status, problem, headers, close

    def answer(self) -> Answer:
        """Return the refusal as an answer."""
        body = encode(Problem(error=self.problem))
        return Answer(body, status=self.status, headers=self.headers, close=self.close)
