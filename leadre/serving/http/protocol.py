"""HTTP/1.1 on a connection: bytes to requests by httptools, answers to bytes. LEADRE §4.4.1.

One request of a connection is served at a time and answers keep their order; what a client sends ahead waits, and past
a bound is not read. A request that is answered before its body was read closes the connection: the rest is thrown away
for a moment, so that the client gets to read the answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import time
from typing import cast
from wsgiref.handlers import format_date_time

import httptools

from leadre.serving.http.application import Application
from leadre.serving.http.limits import MAX_BODY_BYTES, request_id_in
from leadre.serving.http.messages import Answer, Headers, Refusal, Request
from leadre.serving.http.repeated import Head, head_in
from leadre.serving.http.routes import NO_ROUTE, too_large

MAX_TARGET_BYTES, MAX_HEAD_BYTES = 8 * 1024, 32 * 1024
"""Of the path with its query, and of everything before the body (ours)."""
REQUEST_S, IDLE_S, LINGER_S = 10.0, 75.0, 2.0
"""Seconds that a request may take to arrive and its answer to leave, that an idle connection is kept, and that the
rest of a refused body is thrown away (ours)."""
TICK_S = 1.0
"""Seconds between two looks at the time (ours)."""
_AHEAD = 16
"""Requests that wait on a connection before it is not read any more (ours)."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOT_HTTP = Refusal(400, "these bytes are no HTTP request", close=True)
_LONG_TARGET = Refusal(414, f"the path and its query are longer than {MAX_TARGET_BYTES} bytes", close=True)
_LONG_HEAD = Refusal(431, f"the headers are longer than {MAX_HEAD_BYTES} bytes", close=True)


class Connections(set["Connection"]):
    """The open connections of a server, and what their answers say of the time.

    Attributes:
        dated: the end of an answer's head, but for the request's id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tick()

    def tick(self) -> None:
        """Note that `TICK_S` have passed: close the connections whose time is up."""
        self.dated = b"\r\ndate: %b\r\nx-request-id: " % format_date_time(time()).encode()
        for connection in list(self):
            connection.tick()


class Connection(asyncio.Protocol):
    """One client's connection.

    Args:
        app: what answers.
        connections: the open ones of this server; it adds and removes itself.
    """

    __slots__ = (
        "_app",
        "_begun",
        "_body",
        "_connections",
        "_head_bytes",
        "_headers",
        "_heads",
        "_in_head",
        "_keep",
        "_loop",
        "_lost",
        "_match",
        "_method",
        "_parser",
        "_quiet_s",
        "_read_paused",
        "_received",
        "_refused",
        "_sent",
        "_serving",
        "_serving_on",
        "_target",
        "_throwing_away",
        "_transport",
        "_waiting",
        "_write_paused",
        "draining",
    )

    def __init__(self, app: Application, connections: Connections) -> None:
        self._app, self._connections, self._sent = app, connections, self._send
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Request, Refusal | None, bool]] = deque()
        self._serving = self._serving_on = self._read_paused = self._write_paused = self._throwing_away = False
        self._lost = self._keep = self.draining = False
        self._heads: dict[int, Head] = {}  # of GET and of POST, by the first byte
        self._quiet_s, self._received = 0.0, b""
        self._new_request()

    def _new_request(self) -> None:
        self._method, self._target, self._body = "", b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._match = NO_ROUTE
        self._refused: Refusal | None = None
        self._begun, self._in_head, self._head_bytes = False, True, 0

    @property
    def busy(self) -> bool:
        """Whether a request is being served, or read."""
        return self._serving or self._begun or bool(self._waiting)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """End: what is being served is served, for nobody."""
        self._connections.discard(self)
        self._waiting.clear()
        self._throwing_away = self._lost = True

    def data_received(self, data: bytes) -> None:
        """Read."""
        if self._throwing_away:
            return
        free = not (self._begun or self._serving or self._write_paused)
        if free and (head := self._heads.get(data[0])) is not None:
            said = head.of(data)
            if said is not None and self._read_again(head.headers, *said):
                return
        self._received = data if free else b""
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.draining = True  # answered as the plain request it also is; what follows is another protocol's
        except (httptools.HttpParserError, UnicodeDecodeError):
            self._end_with(_NOT_HTTP)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self._throwing_away:
            self._end_with(_LONG_HEAD)

    def _read_again(self, headers: Headers, line: bytes, wire_id: bytes, body: bytes) -> bool:
        """Serve a request whose head was parsed before; return whether it could be."""
        refused = None
        try:
            match = self._app.admit_plain(line, headers, body_bytes=len(body))
        except Refusal as refusal:
            match, refused = NO_ROUTE, refusal
        if match is None:
            return False
        self._quiet_s = 0.0
        self._serve(Request(match.method, match, headers, body, wire_id), refused, keep=True)
        return True

    def on_message_begin(self) -> None:
        """Called by the parser: a request begins."""
        self._begun, self._quiet_s = True, 0.0

    def on_url(self, url: bytes) -> None:
        """Called by the parser: some of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser: a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser: the body is next, unless there is none."""
        if self._throwing_away:
            return
        long = self._head_bytes > MAX_HEAD_BYTES and sum(map(_length, self._headers)) > MAX_HEAD_BYTES
        self._in_head, self._head_bytes = False, 0
        if long or len(self._target) > MAX_TARGET_BYTES:
            self._end_with(_LONG_HEAD if long else _LONG_TARGET)
            return
        self._method = self._parser.get_method().decode("latin-1")
        if not self._target.startswith(b"/"):  # the absolute form, which proxies are sent
            self._target = b"/" + self._target.partition(b"://")[2].partition(b"/")[2]
        try:
            self._match = self._app.admit(self._method, self._target, self._headers)
        except Refusal as refusal:
            if refusal.close:
                self._end_with(refusal)
                return
            self._refused = refusal
        if (b"expect", b"100-continue") in self._headers and not (self._serving or self._waiting):
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Called by the parser: some of the body."""
        if self._throwing_away:
            return
        if self._refused is not None:  # read and forgotten, so that the connection can be kept, but not for ever
            self._head_bytes += len(body)
            if self._head_bytes > MAX_BODY_BYTES:
                self._end_with(Refusal(self._refused.status, self._refused.problem, close=True))
            return
        self._body = self._body + body if self._body else body
        if len(self._body) > self._match.route.max_body_bytes:
            self._end_with(too_large(self._match.route))

    def on_message_complete(self) -> None:
        """Called by the parser: the request is whole."""
        if self._throwing_away:
            return
        keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        headers, body, given_id = self._headers, self._body, request_id_in(self._headers)
        received, self._received = self._received, b""
        if received and keep and self._refused is None:
            line = b"%b %b" % (self._method.encode("latin-1"), self._target)
            if head := head_in(received, line=line, headers=headers, body_bytes=len(body)):
                self._heads[line[0]] = head
        self._waiting.append((Request(self._method, self._match, headers, body, given_id), self._refused, keep))
        self._throwing_away = not keep
        self._new_request()
        if not self._serving:
            self._next()
        elif len(self._waiting) >= _AHEAD and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _end_with(self, refusal: Refusal) -> None:
        """Answer what is not read to its end; nothing more is read from this connection."""
        self._throwing_away = True
        self._waiting.append((Request(self._method, NO_ROUTE, self._headers, b"", b""), refusal, False))
        if not self._serving:
            self._next()

    def _next(self) -> None:
        if self._serving_on:
            return  # an answer was sent at once: the loop below goes on
        self._serving_on = True
        while self._waiting and not self._serving and not self._write_paused:
            request, refusal, keep = self._waiting.popleft()
            self._serve(request, refusal, keep=keep)
        self._serving_on = False
        if self._read_paused and len(self._waiting) < _AHEAD and not self._throwing_away:
            self._read_paused = False
            self._transport.resume_reading()

    def _serve(self, request: Request, refusal: Refusal | None, *, keep: bool) -> None:
        self._serving, self._keep = True, keep
        if refusal is None:
            self._app.respond(request, self._sent)
        else:
            self._app.refuse(request, refusal, self._sent)

    def _send(self, request: Request, answer: Answer) -> None:
        self._serving = False
        if self._lost:
            return
        keep = self._keep and not answer.close and not self.draining
        body = answer.body if request.method != "HEAD" else b""
        end = b"\r\n\r\n" if keep else b"\r\nconnection: close\r\n\r\n"
        self._transport.write(b"".join((answer.head, self._connections.dated, request.wire_id, end, body)))
        self._quiet_s = 0.0
        if not keep:
            self._throwing_away = True
            self._waiting.clear()
            if answer.close:
                self._transport.write_eof()
                self._loop.call_later(LINGER_S, self._transport.abort)
            else:
                self._transport.close()
        elif self._waiting:
            self._next()

    def pause_writing(self) -> None:
        """Serve nothing more until the client has read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        self._next()

    def eof_received(self) -> bool:
        """Answer what was asked before the client stopped sending, then close."""
        self.draining = True
        if not self._serving and not self._waiting:
            return False
        self._throwing_away = True
        return True

    def tick(self) -> None:
        """Note that `TICK_S` have passed, and close the connection if its time is up."""
        self._quiet_s += TICK_S
        if not self._serving and self._quiet_s > (REQUEST_S if self.busy or self._write_paused else IDLE_S):
            self._transport.abort()

    def drain(self) -> None:
        """Close the connection once it has answered."""
        self.draining = True
        if not self.busy:
            self._transport.close()


def _length(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1])
