"""The engine server: a model and its trie behind HTTP. Token ids in, S-IDs out; no users, no features, no Feast.

LEADRE §4.4.2, an instance. Requests of all proxies wait in one line, and what waits when the model is free is decoded
together. The line is bounded: beyond it requests are refused with 503, and the balancer asks another instance. Who
hangs up while its prompts wait gives their places back. A raw ASGI application: it imports neither Feast, SQLAlchemy
nor Redis, so it also runs in TensorRT-LLM's environment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.sent_masks import KeptMasks, UnknownMasks
from leadre.decoding.wire import PATH, Asked, Problem, pack_beams, unpack_filters, unpack_prompts
from leadre.domain.retrieval import Beam
from leadre.errors import InvalidInput, ReleaseMismatch, Unavailable
from leadre.logs import place_of

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MOST_BYTES = 64 << 20
"""Of a request: thousands of long prompts, and dozens of new filters over ten million ads (ours)."""
KEEP_ALIVE_S = 75
"""How long an idle proxy's connection stays open (ours)."""
_MSGPACK, _JSON, _TEXT = b"application/msgpack", b"application/json", b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an instance says of itself: what it serves, and how much waits for it."""

    release: str
    index_version: str
    revision: int
    ads: int
    waiting: int
    running: int


class Host(Protocol):
    """Holds the release that is served (`leadre.serving.engine_host.EngineHost`)."""

    def batcher(self, asked: Asked) -> MicroBatcher:
        """Return what decodes a request.

        Raises:
            ReleaseMismatch: another release, index version or revision is served.
            Unavailable: none is yet.
        """
        ...

    def state(self) -> State:
        """Return what is served, and the load.

        Raises:
            Unavailable: nothing is served yet.
        """
        ...

    def start(self) -> None:
        """Begin to load, and to follow what is live."""
        ...

    def close(self) -> None:
        """End what `start` began."""
        ...


@dataclass(slots=True)
class _Counts:
    """Since the start, by outcome."""

    answered: int = 0
    prompts: int = 0
    refused: int = 0
    full: int = 0
    failed: int = 0


class EngineServer:
    """The ASGI application.

    Args:
        host: holds the engine.
        masks: the filters kept for all proxies.
    """

    def __init__(self, host: Host, *, masks: KeptMasks | None = None) -> None:
        self._host, self._masks, self._counts = host, masks or KeptMasks(), _Counts()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, or the application's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        route = (scope["method"], scope["path"])
        if route == ("POST", PATH):
            await self._generate(receive, send)
        elif route == ("GET", "/healthz"):
            await self._health(send, needs_release=False)
        elif route == ("GET", "/readyz"):
            await self._health(send, needs_release=True)
        elif route == ("GET", "/metrics"):
            await _answer(send, 200, self._metrics().encode(), kind=_TEXT)
        else:
            await _refuse(send, 404, f"there is POST {PATH}, and GET /healthz, /readyz and /metrics")

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._host.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self._host.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _generate(self, receive: Receive, send: Send) -> None:
        try:
            body = await _body(receive)
            if body is None:
                return
            futures = await asyncio.to_thread(self._submit, body)
            answers = await _unless_gone(receive, futures)
        except UnknownMasks as unknown:
            await _refuse(send, 412, str(unknown), unknown=tuple(digest.hex() for digest in unknown.digests))
        except InvalidInput as error:
            self._counts.refused += 1
            status = 413 if error.column == "body" else 400
            await _refuse(send, status, error.problem, row=error.row, column=error.column)
        except ReleaseMismatch as error:
            self._counts.refused += 1
            await _refuse(send, 409, str(error))
        except (Unavailable, CancelledError) as error:
            self._counts.full += 1
            await _refuse(send, 503, str(error) or "the release changed while the request waited; ask again")
        except Exception as error:  # noqa: BLE001 - whatever the model raises, somebody waits
            self._counts.failed += 1
            logger.error("decoding_failed", extra={"error": place_of(error)})
            await _refuse(send, 500, f"decoding ended in {type(error).__name__}: {_harmless(error)}")
        else:
            if answers is not None:
                self._counts.answered += 1
                self._counts.prompts += len(answers)
                await _answer(send, 200, msgspec.msgpack.encode(pack_beams(answers)), kind=_MSGPACK)

    def _submit(self, body: bytes) -> list[Future[list[Beam]]]:
        """Decode a request and let its prompts wait; on a thread, because new filters take milliseconds."""
        try:
            asked = msgspec.msgpack.decode(body, type=Asked)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"no request of an engine: {error}", column="request") from None
        batcher = self._host.batcher(asked)
        if asked.beam_width < 1:
            raise InvalidInput(f"{asked.beam_width}; ask for at least one beam", column="beam_width")
        masks = self._masks.unpack(asked.masks, leaves=asked.ads)
        prompts, filters = unpack_prompts(asked), unpack_filters(asked, masks)
        return batcher.submit_together(prompts, beam_width=asked.beam_width, filters=filters)

    async def _health(self, send: Send, *, needs_release: bool) -> None:
        try:
            said: dict[str, Any] = {"status": "ok", **_plain(self._host.state())}
        except Unavailable as error:
            said = {"status": "loading", "error": str(error)}
        status = 503 if needs_release and said["status"] != "ok" else 200
        await _answer(send, status, msgspec.json.encode(said), kind=_JSON)

    def _metrics(self) -> str:
        """Return Prometheus's text: what an autoscaler reads is `leadre_engine_waiting`."""
        try:
            state = self._host.state()
        except Unavailable:
            waiting = running = ready = 0
        else:
            waiting, running, ready = state.waiting, state.running, 1
        gauges = {"ready": ready, "waiting": waiting, "running": running}
        lines = [f"# TYPE leadre_engine_{name} gauge\nleadre_engine_{name} {value}" for name, value in gauges.items()]
        lines += ["# TYPE leadre_engine_requests_total counter"]
        for outcome in ("answered", "refused", "full", "failed"):
            lines.append(f'leadre_engine_requests_total{{outcome="{outcome}"}} {getattr(self._counts, outcome)}')
        lines += [f"# TYPE leadre_engine_prompts_total counter\nleadre_engine_prompts_total {self._counts.prompts}"]
        return "\n".join(lines) + "\n"


def run(
    app: Callable[..., Awaitable[None]],
    listening: socket.socket,
    *,
    announce: Callable[[], None],
    tls: Mapping[str, Any] | None = None,
) -> None:
    """Serve on a bound socket until a signal ends it. An ASGI server, because that one says when a client hangs up.

    Args:
        app: an `EngineServer`, perhaps behind its keys.
        listening: bound.
        announce: called once requests are accepted.
        tls: uvicorn's options of a certificate; None: plain HTTP.
    """
    import uvicorn

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                announce()

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=KEEP_ALIVE_S, **(tls or {}))
    with suppress(KeyboardInterrupt):  # how uvicorn passes on the signal it ended by
        Announced(config).run(sockets=[listening])


async def _body(receive: Receive) -> bytes | None:
    """Return the request's body; None when the client hung up.

    Raises:
        InvalidInput: it is larger than `MOST_BYTES`.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BYTES:
            raise InvalidInput(f"more than {MOST_BYTES >> 20} MiB; send fewer prompts", column="body")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _unless_gone(receive: Receive, futures: Sequence[Future[list[Beam]]]) -> list[list[Beam]] | None:
    """Wait for all answers; None when the client hangs up first, whose prompts then wait no longer."""
    answers = asyncio.gather(*map(asyncio.wrap_future, futures))
    gone = asyncio.ensure_future(_hung_up(receive))
    try:
        await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            return None
        try:
            return list(answers.result())
        except asyncio.CancelledError:  # the batcher was closed under it
            raise CancelledError from None
    finally:
        gone.cancel()
        for future in futures:
            future.cancel()  # those that wait give their places back
        if not answers.done():
            answers.cancel()
            await asyncio.wait((answers,))
        with suppress(asyncio.CancelledError):
            answers.exception()  # so that nobody reports that it was not looked at


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, status: int, problem: str, **more: Any) -> None:
    body = msgspec.json.encode(Problem(error=problem, **more))
    await _answer(send, status, body, kind=_JSON, headers=[(b"retry-after", b"1")] if status == 503 else [])


async def _answer(send: Send, status: int, body: bytes, *, kind: bytes, headers: Headers | None = None) -> None:
    lead = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": lead})
    await send({"type": "http.response.body", "body": body})


def _harmless(error: Exception) -> str:
    """Return what our own errors say; a library's message may quote its input."""
    return str(error) if type(error).__module__.startswith("leadre.") else "the instance's log says where"


def _plain(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in State.__slots__}
