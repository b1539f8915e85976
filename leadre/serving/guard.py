"""The door of a server: requests without a valid key, or with too many, end here. And who may stand open at all.

LEADRE §4.4.1. `/healthz` and `/readyz` are for whoever watches the process, and need no key.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from leadre.errors import ConfigError
from leadre.serving.http.messages import Headers, Refusal
from leadre.serving.keys import Keys, Refused, presented_key

Application = Callable[..., Awaitable[None]]
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Guarded:
    """An ASGI application behind its keys.

    Args:
        app: what answers the requests that may go on.
        keys: who may ask.
        clock: seconds that do not go back.
    """

    def __init__(self, app: Application, keys: Keys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._keys, self._clock = app, keys, clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            answer = self._keys.allow(presented_key(scope["headers"]), self._clock())
            if isinstance(answer, Refused):
                await _refuse(answer, send)
                return
        await self._app(scope, receive, send)


class KeyGuard:
    """Asks each request's headers for a key: what `leadre.serving.http.Application` calls its guard.

    Args:
        keys: who may ask.
        clock: seconds that do not go back.
    """

    def __init__(self, keys: Keys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._clock = keys, clock

    def __call__(self, headers: Headers) -> None:
        """Let a request in, or not.

        Raises:
            Refusal: without a valid key (401), or too often (429).
        """
        answer = self._keys.allow(presented_key(headers), self._clock())
        if isinstance(answer, Refused):
            raise Refusal(answer.status, answer.problem, headers=_headers(answer))


def _headers(answer: Refused) -> Headers:
    if answer.retry_after_s is None:
        return [(b"www-authenticate", b"Bearer")]
    return [(b"retry-after", b"%d" % answer.retry_after_s)]


async def _refuse(answer: Refused, send: Any) -> None:
    body = msgspec.json.encode({"error": answer.problem})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *_headers(answer)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def check_reach(address: str, *, keys: Keys | None, open_to_all: bool) -> None:
    """Refuse to listen where others can reach a server that asks nobody for a key.

    Args:
        address: the IP address to listen on.
        keys: the server's.
        open_to_all: its operator says that something else keeps strangers away.

    Raises:
        ConfigError: not the loopback, and neither keys nor consent.
    """
    loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    if not loopback and keys is None and not open_to_all:
        raise ConfigError(
            f"{address} can be reached from other machines, and there are no API keys: set LEADRE_API_KEYS_FILE "
            "(`leadre keys new NAME` makes one), listen on 127.0.0.1, or say --open where a proxy checks who asks"
        )
