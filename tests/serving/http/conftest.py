"""A server of its own loop, in a thread, over an application."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import uvloop

from leadre.serving.http.application import Application
from leadre.serving.http.server import serve


@contextmanager
def _listening(app: Application) -> Iterator[int]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    stop = asyncio.Event()
    began = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await serve([(app, listening)], announce=began.set, stop=stop)

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    assert began.wait(30)
    try:
        yield listening.getsockname()[1]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)


@pytest.fixture
def listening() -> Callable[[Application], AbstractContextManager[int]]:
    """Serve an application; gives its port."""
    return _listening
