"""An application behind ASGI: for tests, and for who has an ASGI server already. LEADRE §4.4.1.

Slower than our own protocol (docs/adr/0014-serving.md); the answers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leadre.serving.http.limits import request_id_in
from leadre.serving.http.messages import Answer, Refusal, Request
from leadre.serving.http.routes import NO_ROUTE, too_large

if TYPE_CHECKING:
    from leadre.serving.http.application import Application
    from leadre.serving.http.routes import Match

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


async def serve_asgi(app: Application, scope: Any, receive: Receive, send: Send) -> None:
    """Serve one scope of ASGI: a request, or the lifespan."""
    if scope["type"] == "lifespan":
        await _live(app, receive, send)
    elif scope["type"] == "http":
        answered = await _answered(app, scope, receive)
        if answered is not None:
            request, answer = answered
            headers = [*answer.headers, (b"x-request-id", request.wire_id)]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


async def _answered(app: Application, scope: Any, receive: Receive) -> tuple[Request, Answer] | None:
    """Return a request and its answer; None when its caller hung up while it sent its body."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    raw = raw.removeprefix(scope.get("root_path", "").encode())
    target = raw.partition(b"?")[0] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def settle(_: Request, answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    method, given_id = scope["method"], request_id_in(headers)
    try:
        match = app.admit(method, target, headers)
        body = await _body(match, receive)
    except Refusal as refusal:
        request = Request(method, NO_ROUTE, headers, b"", given_id)
        app.refuse(request, refusal, settle)
    else:
        if body is None:
            return None
        request = Request(method, match, headers, body, given_id)
        app.respond(request, settle)
    return request, await answered


async def _body(match: Match, receive: Receive) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > match.route.max_body_bytes:
            raise too_large(match.route)
        if not message.get("more_body", False):
            return bytes(body)


async def _live(app: Application, receive: Receive, send: Send) -> None:
    await receive()
    async with app.running():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
