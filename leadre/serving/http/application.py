"""An application: routes, what becomes of their failures, and work that runs beside them.

LEADRE §4.4.1. House rule: a log holds no words of a request, so an error that nobody expected is logged by type and
place, without its message. Served by our own protocol (protocol.py), or by any ASGI server (asgi.py).
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from leadre.errors import InvalidInput
from leadre.serving.http.asgi import serve_asgi
from leadre.serving.http.limits import request_id_in, shortened
from leadre.serving.http.measured import Measured
from leadre.serving.http.messages import Answer, Headers, Problem, Refusal, Request, encode
from leadre.serving.http.routes import Match, Route, Router, too_large

logger = logging.getLogger(__name__)

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
        self._running: set[asyncio.Task[Answer]] = set()
        # A prefix of this process's own, and a number: no two requests of a fleet share an id.
        self._process, self._numbers = os.urandom(6).hex(), count()

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
        if match.route.guarded and self._guard is not None:
            self._guard(headers)
        if method not in _BODILESS:
            _check_body(match.route, headers)
        return match

    def respond(self, request: Request, match: Match, send: Callable[[Answer], None]) -> None:
        """Serve an admitted request; `send` gets its answer, now or later, and exactly once."""
        started = perf_counter()
        request.parameters = match.parameters
        route = match.route
        given = request.header(b"x-request-id") if request.headers else None
        request.request_id = (given and request_id_in(given)) or f"{self._process}-{next(self._numbers):x}"
        try:
            found = route.handler(request)
        except Exception as error:  # noqa: BLE001 - the last resort
            found = self._failed(error)
        if type(found) is Answer:
            self._finish(found, route.path, started, send)
            return
        if not isinstance(found, asyncio.Future):
            found = asyncio.ensure_future(found)  # type: ignore[arg-type]
            self._running.add(found)
            found.add_done_callback(self._running.discard)
        found.add_done_callback(partial(self._settled, route.path, started, send))

    def refuse(self, refusal: Refusal, send: Callable[[Answer], None]) -> None:
        """Answer a request that was not admitted."""
        self._finish(refusal.answer(), "", perf_counter(), send)

    def _settled(
        self, path: str, started: float, send: Callable[[Answer], None], found: asyncio.Future[Answer]
    ) -> None:
        if found.cancelled():
            answer = self._failed(asyncio.CancelledError())
        else:
            error = found.exception()
            answer = found.result() if error is None else self._failed(error)
        self._finish(answer, path, started, send)

    def _finish(self, answer: Answer, path: str, started: float, send: Callable[[Answer], None]) -> None:
        if self._measured is not None:
            self._measured.add(path, answer.status, perf_counter() - started)
        send(answer)

    def _failed(self, error: BaseException) -> Answer:
        if isinstance(error, Refusal):
            return error.answer()
        if isinstance(error, InvalidInput):
            return Refusal(400, str(error)).answer()
        places = traceback.extract_tb(error.__traceback__)
        where = f"{places[-1].filename}:{places[-1].lineno}" if places else ""
        logger.error("request_failed", extra={"error": type(error).__name__, "at": where})
        return Answer(encode(Problem(error="this server failed; its log says where")), status=500)

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
