"""Routes: which handler serves a request, found by the path as it was sent, so that %2F belongs to an id.

LEADRE §4.4.1. A route also carries its contract, from which the OpenAPI document is made (openapi.py).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote

from leadre.serving.http.limits import MAX_BODY_BYTES, shortened
from leadre.serving.http.messages import Answer, Refusal, Request

Handler: TypeAlias = Callable[[Request], Answer | Awaitable[Answer] | None]
"""Answers at once, or later by a coroutine, which costs a task; or returns None and calls `Request.answer` later."""

_REMEMBERED, _LONGEST_REMEMBERED = 16_384, 256
"""Lines whose route is remembered, and how long one may be: 10 MB at most (ours)."""
_PLAIN = re.compile(rb"(GET|POST) /[\w./?=&%~:@!$'()*+,;-]*", re.ASCII)
"""A line's begin that needs no parser: what follows it is a space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query parameter, for the OpenAPI document: the handler reads and checks it.

    Args:
        name: of the parameter.
        schema: what it may be, as JSON Schema.
        means: in a few words.
    """

    name: str
    schema: Mapping[str, Any]
    means: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method and a path, what serves them, and their contract.

    Args:
        method: GET or POST; GET serves HEAD as well.
        path: such as `/v1/users/{user_id}/ads`; a parameter is one whole segment, percent-encoded.
        handler: serves a request.
        does: what it does, in a few words.
        takes: the type of the body in JSON; None for none.
        gives: status → type of the answer in JSON; `bytes` for one that is not JSON.
        queries: its query parameters.
        max_body_bytes: a larger body is refused unread.
        media_type: of the body, if it is not JSON.
        guarded: whether it needs a key where the server asks for keys.
    """

    method: str
    path: str
    handler: Handler
    does: str
    takes: Any = None
    gives: Mapping[int, Any] = field(default_factory=dict)
    queries: Sequence[Query] = ()
    max_body_bytes: int = MAX_BODY_BYTES
    media_type: str = "application/json"
    guarded: bool = True


@dataclass(slots=True)
class Match:
    """The route of requests of one method and target, and what the target says.

    Args:
        route: what serves them.
        method: theirs.
        parameters: the path's parameters, percent-encoded as they were sent.
        query: as it was sent.
        kept: what the route's handler made of the target, for the next request that has the same.
    """

    route: Route
    method: str
    parameters: Mapping[str, bytes]
    query: bytes
    kept: Any = None


def _nowhere(_: Request) -> Answer:
    raise AssertionError("a request without a route is refused")


NO_ROUTE = Match(Route(method="", path="", handler=_nowhere, does=""), "", {}, b"")
"""Of a request that was not admitted."""


class Router:
    """Finds routes.

    Args:
        routes: of one server.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._by_length: dict[int, list[tuple[list[bytes | str], dict[str, Route]]]] = {}
        for route in routes:
            segments = [
                part[1:-1] if part.startswith("{") else part.encode()
                for part in route.path.removeprefix("/").split("/")
            ]
            alike = self._by_length.setdefault(len(segments), [])
            methods = next((methods for pattern, methods in alike if pattern == segments), None)
            if methods is None:
                alike.append((segments, methods := {}))
            methods[route.method] = route
        self._remembered: dict[bytes, Match] = {}

    def match(self, method: str, target: bytes) -> Match:
        """Return the route of a request.

        Raises:
            Refusal: nothing is at this path (404), or not by this method (405).
        """
        line = b"%b %b" % (method.encode("latin-1"), target)
        match = self._remembered.get(line)
        if match is None:
            match = self._find(method, target)
            if len(line) <= _LONGEST_REMEMBERED and _PLAIN.fullmatch(line):
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[line] = match
        return match

    def match_line(self, line: bytes) -> Match | None:
        """Return the route of a request by its line up to the second space; None where that has to be parsed."""
        match = self._remembered.get(line)
        if match is None and (plain := _PLAIN.fullmatch(line)):
            with suppress(Refusal):
                match = self.match(plain[1].decode(), line[len(plain[1]) + 1 :])
        return match

    def _find(self, method: str, target: bytes) -> Match:
        path, _, query = target.partition(b"?")
        given = path.removeprefix(b"/").split(b"/")
        for pattern, methods in self._by_length.get(len(given), ()):
            parameters = {}
            for wanted, segment in zip(pattern, given, strict=True):
                if isinstance(wanted, str):
                    parameters[wanted] = segment
                elif wanted != segment:
                    break
            else:
                return Match(_of_method(methods, method), method, parameters, query)
        shown = unquote(path.decode("latin-1"), errors="replace")
        raise Refusal(404, f"there is nothing at {shortened(shown)}; / names the routes")


def _of_method(methods: Mapping[str, Route], method: str) -> Route:
    if found := methods.get("GET" if method == "HEAD" else method):
        return found
    allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
    raise Refusal(
        405,
        f"{shortened(method)} is not for this route; it takes {allowed}",
        headers=[(b"allow", allowed.encode())],
    )


def too_large(route: Route) -> Refusal:
    """Return the refusal of a body that is larger than its route takes."""
    return Refusal(413, f"the body is larger than {route.max_body_bytes} bytes; send less at once", close=True)
