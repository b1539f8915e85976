"""Serves applications on sockets until a signal, then lets what is being served end. LEADRE §4.4.1."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

import uvloop

from leadre.serving.http.application import Application
from leadre.serving.http.protocol import TICK_S, Connection, Connections

_BACKLOG = 2048
DRAIN_S = 10.0
"""Seconds that requests have to end after the signal (ours)."""


def run(
    served: Sequence[tuple[Application, socket.socket]],
    *,
    announce: Callable[[], object],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve applications, each on a bound socket, until SIGTERM or SIGINT.

    Args:
        served: applications and sockets.
        announce: called in a thread once requests are accepted.
        tls: how the first application's connections are encrypted; None: not at all.
    """
    gc.collect()
    gc.freeze()  # what was imported lives for ever: no request waits while it is looked through
    uvloop.run(serve(served, announce=announce, tls=tls))


async def serve(
    served: Sequence[tuple[Application, socket.socket]],
    *,
    announce: Callable[[], object] = lambda: None,
    tls: ssl.SSLContext | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """As `run`, in a running loop.

    Args:
        served: as `run`.
        announce: as `run`.
        tls: as `run`.
        stop: ends it; None: signals do.
    """
    loop = asyncio.get_running_loop()
    if stop is None:
        stop = asyncio.Event()
        for ends in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ends, stop.set)
    connections = Connections()
    async with AsyncExitStack() as running:
        for app, _ in served:
            await running.enter_async_context(app.running())
        servers = []
        for number, (app, listening) in enumerate(served):
            factory, encrypted = _factory(app, connections), tls if number == 0 else None
            servers.append(await loop.create_server(factory, sock=listening, backlog=_BACKLOG, ssl=encrypted))
        announcing = asyncio.ensure_future(asyncio.to_thread(announce))
        ticking = asyncio.ensure_future(_tick(connections))
        await stop.wait()
        for app, _ in served:
            app.closing = True
        for server in servers:
            server.close()
        await _drained(connections)
        ticking.cancel()
        await asyncio.gather(announcing, ticking, return_exceptions=True)


def _factory(app: Application, connections: Connections) -> Callable[[], Connection]:
    return lambda: Connection(app, connections)


async def _tick(connections: Connections) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        connections.tick()


async def _drained(connections: Connections) -> None:
    for connection in list(connections):
        connection.drain()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while any(connection.busy for connection in connections):
                await asyncio.sleep(0.01)
