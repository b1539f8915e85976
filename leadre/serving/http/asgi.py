"""An application behind ASGI: for tests, and for who has an ASGI server already. LEADRE §4.4.1.

Slower than our own protocol (docs/adr/0014-serving.md); the answers are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leadre.serving.http.messages import Answer, Refusal, Request
from leadre.serving.http.routes import too_large

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
        answer = await _answer(app, scope, receive)
        if answer is not None:
            headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(answer.body))]
            await send({"type": "http.response.start", "status": answer.status, "headers": [*headers, *answer.headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


async def _answer(app: Application, scope: Any, receive: Receive) -> Answer | None:
    """Return the answer to a request; None when its caller hung up while it sent its body."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    raw = raw.removeprefix(scope.get("root_path", "").encode())
    target = raw.partition(b"?")[0] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    try:
        match = app.admit(scope["method"], target, headers)
        body = await _body(match, receive)
    except Refusal as refusal:
        app.refuse(refusal, answered.set_result)
    else:
        if body is None:
            return None
        request = Request(scope["method"], target, headers=headers, body=body)
        app.respond(request, match, lambda answer: None if answered.done() else answered.set_result(answer))
        answer = await answered
        answer.headers = [(b"x-request-id", request.request_id.encode()), *answer.headers]
    return await answered


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
