"""A head that is said again: answered as if it had been parsed, however the bytes of a connection arrive."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from leadre.serving.http.application import Application
from leadre.serving.http.messages import Answer, Headers, Refusal, Request, json_answer
from leadre.serving.http.operations import serving
from leadre.serving.http.protocol import Connection, Connections
from leadre.serving.http.repeated import head_in
from leadre.serving.http.routes import Route

HEADERS = [
    b"host: x\r\n",
    b"Host: x\r\nUser-Agent: a client/1\r\nAccept: */*\r\n",
    b"host: x\r\nX-Request-Id: one\r\naccept: one\r\n",
    b"host: x\r\nX-Request-Id: two\r\naccept: one\r\n",
    b"host: x\r\nX-Request-Id: a b\r\naccept: one\r\n",
    b"host: x\r\nx-request-id: one\r\nx-request-id: two\r\n",
    b"host: x\r\ntraceparent: 00-1\r\n",
    b"host: x\r\nfolded: a\r\n b\r\n",
    b"host: x\r\nconnection: keep-alive\r\n",
]
TARGETS = [b"/echo/1", b"/echo/1?a=b", b"/echo/%2F", b"/echo/a:b@c", b"/nowhere", b"/echo/\xc3\xbc", b"/echo/'\""]
BODIES = [b"", b"x", b"abcdef", b"a\r\n\r\nb", b"GET /echo/2 HTTP/1.1\r\nhost: x\r\n\r\n", b"\n"]


class Wire:
    """What a connection writes to; what it wrote."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def application(**options: Any) -> Application:
    def echo(request: Request) -> Answer:
        told = {
            "method": request.method,
            "what": base64.b64encode(request.parameters["what"]).decode(),
            "query": request.match.query.decode(),
            "id": request.request_id.partition("-")[0],
            "headers": [[name.decode(), value.decode()] for name, value in request.headers if name != b"x-request-id"],
            "body": base64.b64encode(request.body).decode(),
        }
        return json_answer(told)

    routes = [
        Route(method=method, path="/echo/{what}", handler=echo, does="Echo.", takes=takes)
        for method, takes in (("GET", None), ("POST", bytes))
    ]
    return serving("test", routes, counters={}, measuring=False, **options)


def answers(app: Application, *received: bytes) -> list[tuple[bytes, Any]]:
    """Return the status and body of each answer to what one connection receives, in these pieces."""

    async def told() -> bytes:
        wire = Wire()
        connection = Connection(app, Connections())
        connection.connection_made(wire)  # type: ignore[arg-type]
        for piece in received:
            if not wire.closed:
                connection.data_received(piece)
        return wire.written

    found, left = [], asyncio.run(told())
    while left:
        head, _, left = left.partition(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append((head[9:12], json.loads(left[:length])))
        left = left[length:]
    return found


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method, target = draw(st.sampled_from([b"GET", b"POST", b"POST", b"PUT"])), draw(st.sampled_from(TARGETS))
    headers = draw(st.sampled_from(HEADERS))
    body = b"" if method == b"GET" else draw(st.sampled_from(BODIES))
    how = draw(st.sampled_from(["length", "length", "chunks"])) if body else "none"
    if how == "length":
        headers += b"content-length: %d\r\n" % len(body)
    elif how == "chunks":
        headers += b"transfer-encoding: chunked\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, headers, body)


@settings(max_examples=200)
@given(st.lists(requests(), min_size=1, max_size=8), st.lists(st.integers(1, 400), max_size=6))
def test_a_connection_answers_as_one_for_each_request_would_however_its_bytes_arrive(
    asked: Sequence[bytes], cuts: Sequence[int]
) -> None:
    app = application()
    apart: list[tuple[bytes, Any]] = []
    for each in asked:
        apart += answers(app, each)
        if apart[-1][0] == b"400":  # what is no HTTP ends the connection
            break
    whole, pieces = b"".join(asked), []
    for cut in cuts:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    assert answers(app, *asked) == apart
    assert answers(app, *filter(None, [*pieces, whole])) == apart


def test_a_head_said_again_is_not_parsed_and_one_that_differs_is() -> None:
    async def told() -> list[Any]:
        app, wire = application(), Wire()
        connection = Connection(app, Connections())
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(b"GET /echo/1 HTTP/1.1\r\nhost: x\r\n\r\n")
        parser, connection._parser = connection._parser, None
        connection.data_received(b"GET /echo/2?a=b HTTP/1.1\r\nhost: x\r\n\r\n")
        connection._parser = parser
        connection.data_received(b"GET /echo/3 HTTP/1.1\r\nhost: y\r\n\r\n")
        return [
            json.loads(part) for part in wire.written.split(b"\r\n\r\n")[1:] for part in [part.partition(b"HTTP")[0]]
        ]

    first, second, third = asyncio.run(told())
    assert (first["headers"], second["headers"], third["headers"]) == (
        [["host", "x"]],
        [["host", "x"]],
        [["host", "y"]],
    )
    assert [base64.b64decode(each["what"]) for each in (first, second, third)] == [b"1", b"2", b"3"]
    assert second["query"] == "a=b"


def test_the_guard_is_asked_about_a_head_that_is_said_again() -> None:
    left = 2

    def guard(headers: Headers) -> None:
        nonlocal left
        assert (b"x-api-key", b"k") in headers
        if left == 0:
            raise Refusal(429, "too many")
        left -= 1

    one = b"GET /echo/1 HTTP/1.1\r\nx-api-key: k\r\n\r\n"
    assert [status for status, _ in answers(application(guard=guard), *[one] * 4)] == [b"200", b"200", b"429", b"429"]


def test_a_body_that_is_too_large_for_its_route_is_refused_under_a_head_that_was_right_elsewhere() -> None:
    def count(request: Request) -> Answer:
        return json_answer(len(request.body))

    routes = [
        Route(method="POST", path=f"/{bound}", handler=count, does="Count.", takes=bytes, max_body_bytes=bound)
        for bound in (3, 4)
    ]
    app = serving("test", routes, counters={}, measuring=False)
    asked = [b"POST /%d HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcd" % bound for bound in (4, 4, 3)]
    assert [status for status, _ in answers(app, *asked)] == [b"200", b"200", b"413"]


def test_a_head_is_remembered_only_where_the_bytes_are_one_plain_request() -> None:
    line, headers, tail = b"GET /a", [(b"host", b"x")], b" HTTP/1.1\r\nhost: x\r\n\r\n"

    def found(data: bytes, *, headers: Headers = headers, body_bytes: int = 0) -> bool:
        return head_in(data, line=line, headers=list(headers), body_bytes=body_bytes) is not None

    assert found(line + tail)
    assert found(line + tail + b"abc", body_bytes=3)
    for other in (line + tail * 2, line + tail + b"GET", b"\r\n" + line + tail, line + b" HTTP/1.0\r\nhost: x\r\n\r\n"):
        assert not found(other)
    assert not found(line + tail + line + tail)
    assert not found(line + b" HTTP/1.1\r\nhost: x\r\n y\r\n\r\n")
    assert not found(line + b" HTTP/1.1\r\nhost: " + b"x" * 3_000 + b"\r\n\r\n")
    with_id = b" HTTP/1.1\r\nhost: x\r\nX-Request-Id: 7\r\n\r\n"
    head = head_in(line + with_id, line=line, headers=[*headers, (b"x-request-id", b"7")], body_bytes=0)
    assert head is not None
    assert head.of(b"GET /b" + with_id.replace(b"7", b"abc")) == (b"GET /b", b"abc", b"")
    assert head.of(b"GET /b" + with_id.replace(b"7", b"a\r\nb: c")) is None
    assert head.of(b"GET /b" + with_id + b"x") is None
