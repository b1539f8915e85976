"""What goes in and out of a route: a request that is read whole, an answer that is bytes, a refusal.

LEADRE §4.4.1. An answer's head is written once: a handler that keeps an answer keeps its bytes for the wire.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from leadre.errors import InvalidInput

if TYPE_CHECKING:
    from leadre.serving.http.measured import Measured
    from leadre.serving.http.routes import Match

logger = logging.getLogger(__name__)

JSON = b"application/json"
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values."""

_ENCODER = msgspec.json.Encoder()
encode = _ENCODER.encode
"""A contract, or plain values, as JSON."""


class Request:
    """A request, its body read whole within the route's bound, and the way to its answer.

    Args:
        method: as it was sent.
        match: its route, and what its target says; `routes.NO_ROUTE` of one that is refused.
        headers: names in lower case.
        body: no more bytes than the route takes.
        wire_id: its id in bytes: the caller's `X-Request-Id`, or b"" for one that the application makes.

    Attributes:
        send: gets the answer. The application sets it, and what counts the answer from when.
    """

    __slots__ = ("body", "headers", "match", "measured", "method", "send", "started", "wire_id")

    send: Send | None
    measured: Measured | None
    started: float

    def __init__(self, method: str, match: Match, headers: Headers, body: bytes, wire_id: bytes) -> None:
        self.method, self.match, self.headers, self.body, self.wire_id = method, match, headers, body, wire_id

    @property
    def parameters(self) -> Mapping[str, bytes]:
        """The path's parameters, percent-encoded as they were sent."""
        return self.match.parameters

    @property
    def request_id(self) -> str:
        """The caller's `X-Request-Id`, or one of ours."""
        return self.wire_id.decode()

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of a name, which is written in lower case."""
        for found, value in self.headers:
            if found == name:
                return value
        return None

    def asked(self, name: str) -> str | None:
        """Return the last value of a query parameter; None when it is not there."""
        return query_value(self.match.query, name)

    def answer(self, answer: Answer) -> None:
        """Answer it. Only the first answer counts."""
        send = self.send
        if send is None:
            return
        self.send = None
        if self.measured is not None:
            self.measured.add(self.match.route.path, answer.status, perf_counter() - self.started)
        send(self, answer)

    def fail(self, error: BaseException) -> None:
        """Answer with what became of it; what nobody expected is logged by type and place."""
        if isinstance(error, Refusal):
            self.answer(error.answer())
        elif isinstance(error, InvalidInput):
            self.answer(Refusal(400, str(error)).answer())
        else:
            places = traceback.extract_tb(error.__traceback__)
            where = f"{places[-1].filename}:{places[-1].lineno}" if places else ""
            logger.error("request_failed", extra={"error": type(error).__name__, "at": where})
            self.answer(Answer(encode(Problem(error="this server failed; its log says where")), status=500))


def query_value(query: bytes, name: str) -> str | None:
    """Return the last value of a parameter in a query string; None when it is not there."""
    if not query:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=None).get(name)
    return values[-1] if values else None


class Answer:
    """An answer, ready to be sent, to one request or to many.

    Args:
        body: its bytes.
        status: of HTTP.
        content_type: of the body.
        headers: besides the content's type and length.
        close: whether the connection ends with it.

    Attributes:
        head: what HTTP/1.1 says before its date, without the last line's end.
    """

    __slots__ = ("body", "close", "head", "headers", "status")

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        self.body, self.status, self.close = body, status, close
        self.headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
        self.head = _first_line(status) + b"".join([b"\r\n%b: %b" % header for header in self.headers])


Send = Callable[[Request, Answer], None]
"""Sends the answer to a request."""


@lru_cache(maxsize=64)
def _first_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())


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
