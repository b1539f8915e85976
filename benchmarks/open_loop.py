"""Requests on time, whether earlier ones are answered or not: latencies that no slow answer hides.

Usage: python benchmarks/open_loop.py PORT USERS RATE SECONDS; prints JSON: p50_ms, p99_ms, max_ms, sent, ok, degraded.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable

import numpy as np
import uvloop

CONNECTIONS = 64


class Client(asyncio.Protocol):
    """A connection: requests in a row, answers in the same."""

    def __init__(self, note: Callable[[float, bool, bool], None]) -> None:
        self._note = note
        self._due: deque[float] = deque()
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self._loop = asyncio.get_running_loop()

    def send(self, request: bytes, due: float) -> None:
        """Ask what was due at a time of the loop."""
        self._due.append(due)
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Read answers."""
        self._read += data
        while (head := self._read.find(b"\r\n\r\n")) >= 0:
            place = self._read.index(b"content-length: ") + 16
            end = head + 4 + int(self._read[place : self._read.index(b"\r", place)])
            if len(self._read) < end:
                return
            body = self._read[head + 4 : end]
            due = self._due.popleft()
            self._note(self._loop.time() - due, self._read.startswith(b"HTTP/1.1 200"), b'"degraded":true' in body)
            del self._read[:end]


async def run(port: int, *, users: int, rate: float, seconds: float) -> dict[str, float]:
    """Ask for lists at a constant rate, and return the figures."""
    loop = asyncio.get_running_loop()
    took: list[float] = []
    oks = degradeds = 0

    def note(latency: float, ok: bool, degraded: bool) -> None:  # noqa: FBT001 - an answer's three facts
        nonlocal oks, degradeds
        took.append(latency)
        oks += ok
        degradeds += degraded

    clients = [(await loop.create_connection(lambda: Client(note), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    count, began = int(rate * seconds), loop.time() + 0.1
    for n in range(count):
        due = began + n / rate
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        request = f"GET /v1/users/{n % users}/ads HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        clients[n % CONNECTIONS].send(request, due)
    for _ in range(500):
        if len(took) == count:
            break
        await asyncio.sleep(0.01)
    ms = np.array(took or [np.inf]) * 1e3
    return {
        "p50_ms": float(np.quantile(ms, 0.5)),
        "p99_ms": float(np.quantile(ms, 0.99)),
        "max_ms": float(ms.max()),
        "sent": float(count),
        "ok": float(oks),
        "degraded": float(degradeds),
    }


if __name__ == "__main__":
    port, users, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    print(json.dumps(uvloop.run(run(port, users=users, rate=rate, seconds=seconds))))
