"""What both servers' applications share: small routes, refusals in JSON, and work that runs beside them.

LEADRE §4.4.1. House rule: a log holds no words of a request, so an error that nobody expected is logged by type and
place, without its message.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leadre import __version__
from leadre.errors import InvalidInput
from leadre.serving.metrics import CONTENT_TYPE, exposition
from leadre.serving.requests import shortened

logger = logging.getLogger(__name__)

DOCS = "docs/operations.md"
_GAUGES_DEADLINE_S = 1.0


class _SourceId(Convertor[str]):
    """Any text, slashes and line ends too: which of them an id may hold, `requests.user_of` says."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("source_id", _SourceId())


def serving(
    name: str,
    routes: Sequence[Route],
    *,
    counters: Mapping[str, int],
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    gauges: Callable[[], Mapping[str, str]] = dict,
) -> Starlette:
    """Return an ASGI application with `routes`, and `/`, `/healthz` and `/metrics-lite` beside them.

    Args:
        name: what the server is called.
        routes: its own routes.
        counters: what `/metrics-lite` answers: counts since the start.
        background: coroutines that run from the application's start to its end.
        gauges: returns what `/metrics-lite` shows Prometheus besides (`metrics.published`). It may block and fail.
    """

    async def pointer(_: Request) -> JSONResponse:
        shown = [f"{'POST' if 'POST' in (route.methods or ()) else 'GET'} {route.path}" for route in everything]
        written = [line.replace(":source_id", "") for line in shown]
        return JSONResponse({"name": f"leadre {name}", "version": __version__, "routes": written, "docs": DOCS})

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})  # the process is up; reads fail open, so no other server has to be

    async def metrics(request: Request) -> Response:
        if not {"text/plain", "application/openmetrics-text"} & _accepted(request):
            return JSONResponse(dict(counters))
        try:
            found = await asyncio.wait_for(asyncio.to_thread(gauges), _GAUGES_DEADLINE_S)
        except Exception as error:  # noqa: BLE001 - counters are worth showing without them
            logger.warning("gauges_not_read", extra={"error": type(error).__name__})
            found = {}
        return Response(exposition(name, counters, found), headers={"content-type": CONTENT_TYPE})

    @asynccontextmanager
    async def beside(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(run()) for run in background]
        yield
        for task in tasks:
            task.cancel()

    everything = [*routes, Route("/healthz", healthz), Route("/metrics-lite", metrics)]
    all_routes: list[BaseRoute] = [Route("/", pointer), *everything]
    app = Starlette(
        lifespan=beside,
        routes=all_routes,
        middleware=[Middleware(LastResort)],
        exception_handlers={InvalidInput: refuse, HTTPException: refuse},
    )
    app.router.redirect_slashes = False  # it would decode an id's %2F
    return app


def _accepted(request: Request) -> set[str]:
    """Return the media types that a request names as acceptable, without their parameters."""
    return {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}


async def refuse(request: Request, error: Exception) -> Response:
    """Answer a request that cannot be served with its problem in JSON: 400, or an HTTP error's own status."""
    if not isinstance(error, HTTPException):
        return JSONResponse({"error": str(error)}, status_code=400)
    problem = error.detail
    if error.status_code == 404:
        problem = f"there is nothing at {shortened(request.scope['path'])}; / names the routes"
    elif error.status_code == 405:
        problem = f"{shortened(request.method)} is not for this route; it takes {(error.headers or {}).get('Allow')}"
    return JSONResponse({"error": problem}, status_code=error.status_code, headers=error.headers)


class LastResort:
    """Answers 500 where a handler failed, and logs the failure without its words."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass  # it hung up while it sent its body: nobody waits for an answer
        except Exception as error:
            if scope["type"] != "http":
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            logger.error("request_failed", extra={"error": type(error).__name__, "at": where})
            if not started:
                answer = JSONResponse({"error": "this server failed; its log says where"}, status_code=500)
                await answer(scope, receive, send)
