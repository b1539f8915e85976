"""The routes that every server has beside its own: what it is, whether it is well, what it counted. LEADRE §4.4.1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from leadre import __version__
from leadre.serving.http.application import Application, Background, Guard
from leadre.serving.http.measured import Measured
from leadre.serving.http.messages import Answer, Request, json_answer
from leadre.serving.http.openapi import document
from leadre.serving.http.routes import Route

logger = logging.getLogger(__name__)

DOCS = "docs/operations.md"
_GAUGES_DEADLINE_S = 1.0

Gauges = Callable[[], Iterable[Metric]]
"""Metrics that have to be fetched. It may block and fail; the others are shown without them."""


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a server is well; what is missing, while it is not ready."""

    status: str
    missing: Sequence[str] = ()


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is."""

    name: str
    version: str
    routes: Sequence[str]
    docs: str


def serving(
    name: str,
    routes: Sequence[Route],
    *,
    counters: Mapping[str, int],
    collectors: Sequence[Callable[[], Iterable[Metric]]] = (),
    background: Sequence[Background] = (),
    gauges: Gauges = tuple,
    ready: Callable[[], Sequence[str]] = tuple,
    guard: Guard | None = None,
    measuring: bool = True,
    operations_apart: bool = False,
) -> Application:
    """Return an application of some routes; its `operations` is one for a port of their own.

    `/`, `/healthz`, `/readyz` and `/openapi.json` stand beside the routes, and `/metrics` unless it is to be apart.

    Args:
        name: what the server is called.
        routes: its own routes.
        counters: counts since the start, `leadre_served_total`.
        collectors: more metrics, from memory.
        background: what runs from the application's start to its end.
        gauges: more metrics, fetched in a thread.
        ready: names what is missing before the server is ready.
        guard: asked before guarded routes.
        measuring: whether requests are counted and timed.
        operations_apart: whether `/metrics` is shown on the port of operations alone.
    """
    measured = Measured(name)
    registry = CollectorRegistry()
    for collect in (measured.collect, lambda: [_served(name, counters)], *collectors):
        registry.register(_Collected(collect))

    async def metrics(request: Request) -> Answer:
        fetched = CollectorRegistry()
        try:
            found = list(await asyncio.wait_for(asyncio.to_thread(gauges), _GAUGES_DEADLINE_S))
        except Exception as error:  # noqa: BLE001 - counters are worth showing without them
            logger.warning("gauges_not_read", extra={"error": type(error).__name__})
        else:
            fetched.register(_Collected(lambda: found))
        encoder, content_type = choose_encoder((request.header(b"accept") or b"").decode("latin-1"))
        both = _Collected(lambda: [*REGISTRY.collect(), *registry.collect(), *fetched.collect()])
        return Answer(encoder(both), content_type=content_type.encode())

    def healthz(_: Request) -> Answer:
        return json_answer(Status(status="ok"))  # the process is up; reads fail open, so no other server has to be

    def readyz(_: Request) -> Answer:
        missing = ["it is shutting down"] if app.closing else list(ready())
        if missing:
            return json_answer(Status(status="not ready", missing=missing), status=503)
        return json_answer(Status(status="ready"))

    of_operations = [
        _route("/healthz", healthz, "Say that the process is up.", {200: Status}),
        _route("/readyz", readyz, "Say whether it can answer with lists.", {200: Status, 503: Status}),
    ]
    metrics_route = _route("/metrics", metrics, "Show Prometheus what was counted.", {200: bytes}, guarded=True)
    public = [*routes, *of_operations, *(() if operations_apart else (metrics_route,))]
    app = Application(
        name,
        _described(name, public),
        background=background,
        guard=guard,
        measured=measured if measuring else None,
        operations=Application(name, _described(name, [*of_operations, metrics_route])),
    )
    return app


def _described(name: str, routes: Sequence[Route]) -> list[Route]:
    """Return the routes, and two that describe them all."""

    def about(_: Request) -> Answer:
        lines = [f"{route.method} {route.path}" for route in everything[1:]]
        return json_answer(About(name=f"leadre {name}", version=__version__, routes=lines, docs=DOCS))

    def openapi(_: Request) -> Answer:
        return json_answer(document(name, everything))

    everything = [
        _route("/", about, "Name the routes.", {200: About}),
        *routes,
        _route("/openapi.json", openapi, "Describe the routes.", {200: dict[str, Any]}),
    ]
    return everything


def _route(path: str, handler: Any, does: str, gives: Mapping[int, Any], *, guarded: bool = False) -> Route:
    return Route(method="GET", path=path, handler=handler, does=does, gives=gives, guarded=guarded)


def _served(server: str, counters: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("leadre_served", "What a server counted since its start.", labels=["server", "what"])
    for what, number in sorted(counters.items()):
        family.add_metric([server, what], number)
    return family


class _Collected(Collector):
    """A collector of prometheus_client from a function; its metrics have no names before the first collection."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        return self._metrics()

    def describe(self) -> Iterable[Metric]:
        """Return nothing."""
        return []
