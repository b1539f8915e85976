"""An application: routes, what becomes of their failures, and work that runs beside them.

LEADRE §4.4.1. House rule: a log holds no words of a request, so an error that nobody expected is logged by type and
place, without its message. Served by our own protocol (protocol.py), or by any ASGI server (asgi.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from leadre.serving.http.asgi import serve_asgi
from leadre.serving.http.limits import shortened
from leadre.serving.http.measured import Measured
from leadre.serving.http.messages import Answer, Headers, Refusal, Request, Send
from leadre.serving.http.routes import Match, Route, Router, too_large

Background = Callable[[], Coroutine[Any, Any, None]]
"""A coroutine that runs from an application's start to its end."""
Guard = Callable[[Headers], None]
"""Looks at the headers of a request to a guarded route; raises `Refusal`, 401 or 429, to turn it away."""
_BODILESS = ("GET", "HEAD")


class Application:
    """Answers requests by its routes.

    Args:
        name: what the server is called.
        routes: all of them.
        background: what runs beside it.
        guard: asked before every request to a guarded route.
        measured: counts requests; None counts none.
        operations: an application for the port of operations; None: there is none.

    Attributes:
        closing: whether it ends soon. The server sets it.
    """

    def __init__(
        self,
        name: str,
        routes: Sequence[Route],
        *,
        background: Sequence[Background] = (),
        guard: Guard | None = None,
        measured: Measured | None = None,
        operations: Application | None = None,
    ) -> None:
        self.name, self.routes = name, tuple(routes)
        self._router, self._background, self._guard, self._measured = Router(routes), background, guard, measured
        self.operations, self.closing = operations, False
        self._running: set[asyncio.Future[Answer]] = set()
        # A prefix of this process's own, and a number: no two requests of a fleet share an id.
        self._ids = map((os.urandom(6).hex().encode() + b"-%x").__mod__, count())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Application]:
        """Run what runs beside the routes."""
        tasks = [asyncio.ensure_future(run()) for run in self._background]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def admit(self, method: str, target: bytes, headers: Headers) -> Match:
        """Return the route of a request whose body has not been read yet.

        Raises:
            Refusal: there is none (404, 405), it may not come in (401, 429), or its body would not be read (413, 415).
        """
        match = self._router.match(method, target)
        if self._guard is not None and match.route.guarded:
            self._guard(headers)
        if method not in _BODILESS:
            _check_body(match.route, headers)
        return match

    def admit_plain(self, line: bytes, headers: Headers, *, body_bytes: int) -> Match | None:
        """Return the route of a request whose headers were admitted before; None where it is to be read as a new one.

        Args:
            line: method and target, with a space between.
            headers: those of an admitted request.
            body_bytes: the body's length.

        Raises:
            Refusal: it may not come in (401, 429).
        """
        match = self._router.match_line(line)
        if match is None or body_bytes > match.route.max_body_bytes:
            return None
        if self._guard is not None and match.route.guarded:
            self._guard(headers)
        return match

    def respond(self, request: Request, send: Send) -> None:
        """Serve an admitted request; `send` gets it with its answer, now or later, and once."""
        self._take(request, send)
        try:
            found = request.match.route.handler(request)
        except Exception as error:  # noqa: BLE001 - the last resort
            request.fail(error)
            return
        if found is None:
            return
        if type(found) is Answer:
            request.answer(found)
            return
        running = asyncio.ensure_future(found)  # type: ignore[arg-type]
        self._running.add(running)
        running.add_done_callback(partial(self._settled, request))

    def refuse(self, request: Request, refusal: Refusal, send: Send) -> None:
        """Answer a request that was not admitted."""
        self._take(request, send)
        request.answer(refusal.answer())

    def _take(self, request: Request, send: Send) -> None:
        request.send, request.measured, request.started = send, self._measured, perf_counter()
        request.wire_id = request.wire_id or next(self._ids)

    def _settled(self, request: Request, found: asyncio.Future[Answer]) -> None:
        self._running.discard(found)
        if found.cancelled():
            request.fail(asyncio.CancelledError())
        elif error := found.exception():
            request.fail(error)
        else:
            request.answer(found.result())

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
        """Serve as an ASGI application."""
        await serve_asgi(self, scope, receive, send)


def _check_body(route: Route, headers: Headers) -> None:
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and (len(value) > 18 or int(value) > route.max_body_bytes):
            raise too_large(route)
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            shown = shortened(value.decode("latin-1"))
            raise Refusal(415, f"a body in content-encoding {shown} is not read; send it plain", close=True)
