"""One connection to Redis for a whole process: commands pipelined as they come, and given up together in 20 ms.

LEADRE §4.4.1. Whoever reads waits for one round trip, or not at all: while Redis is away, a command fails at once. What
was written in one turn of the event loop leaves in one packet. Replies come in order, so that a reply that is late
makes all later ones late: then the connection is dropped, for its replies could no longer be told apart.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

from leadre.errors import Unavailable
from leadre.serving.redis.wire import Address, command

logger = logging.getLogger(__name__)

DEADLINE_S = 0.02
"""Seconds that the oldest command waits for its reply (ours: an answer goes out in 25 ms)."""
CONNECT_S = 0.5
"""Seconds in which a new connection has to be greeted (ours)."""
_GRACE_S = 0.002
"""An event loop that was held up looks at what has arrived before it calls a reply late."""
_SOONEST_S, _LATEST_S = 0.01, 0.25
"""Pauses between attempts to connect: twice as long after each, with jitter (ours)."""
MAX_PENDING = 100_000
"""Commands that wait for a reply at once (ours)."""

Reply = Callable[[Any], None]
"""Gets a reply of Redis, `hiredis.ReplyError` for a refusal, or `Unavailable`. It must not raise."""
Written = bytes | Callable[[], bytes]
"""A command as `wire.command` writes it, or what writes it when it leaves, at the end of the event loop's turn."""
Ask = Callable[[Written, Reply], None]
"""Sends a command, and calls the other with its reply, at once if Redis is away."""


def _away(_: Written, reply: Reply) -> None:
    reply(Unavailable("Redis does not answer; look whether it runs"))


class RedisConnection:
    """The process's connection; it is kept by `keep`, which runs beside whoever uses it.

    Args:
        address: where Redis is.
        deadline_s: seconds that the oldest command waits for its reply.

    Attributes:
        ask: sends a command.
        dropped: connections that were lost.
    """

    def __init__(self, address: Address, *, deadline_s: float = DEADLINE_S) -> None:
        self._address, self._deadline_s = address, deadline_s
        self._link: _Link | None = None
        self.ask: Ask = _away
        self.dropped = 0

    @property
    def up(self) -> bool:
        """Whether commands are being sent."""
        return self._link is not None

    def call(self, *words: bytes | str | int | float) -> asyncio.Future[Any]:
        """Send a command and return its reply to come.

        The future raises `Unavailable`, or `hiredis.ReplyError` where Redis refuses.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.ask(command(*words), settle)
        return future

    async def keep(self) -> None:
        """Connect, and connect anew whenever the connection is lost, for ever."""
        pause = _SOONEST_S
        try:
            while True:
                try:
                    link = await self._connected()
                except (OSError, Unavailable, hiredis.HiredisError, TimeoutError) as error:
                    logger.warning("redis_not_reached", extra={"error": type(error).__name__})
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                    pause = min(2 * pause, _LATEST_S)
                    continue
                pause = _SOONEST_S
                self._link, self.ask = link, link.ask
                await link.lost.wait()
                self._gone(link)
                self.dropped += 1
                logger.warning("redis_lost")
        finally:
            if self._link is not None:
                self._link.drop("the server is closing")

    async def _connected(self) -> _Link:
        """Return a connection that has been greeted."""
        address, loop = self._address, asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            _, link = await loop.create_connection(
                lambda: _Link(self._deadline_s, self._gone), address.host, address.port, ssl=address.tls
            )
            try:
                for said in address.greeting:
                    greeted: asyncio.Future[Any] = loop.create_future()
                    link.ask(said, lambda reply, greeted=greeted: greeted.done() or greeted.set_result(reply))  # type: ignore[misc]
                    if isinstance(reply := await greeted, Exception):
                        raise reply
            except BaseException:
                link.drop("it was not greeted")
                raise
            return link

    def _gone(self, link: _Link) -> None:
        if self._link is link:
            self._link, self.ask = None, _away


class _Link(asyncio.Protocol):
    """One connection from its beginning to its end."""

    def __init__(self, deadline_s: float, gone: Callable[[_Link], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline_s, self._gone = deadline_s, gone
        self._reader = hiredis.Reader()
        self._written: list[Written] = []
        self._pending: deque[Reply] = deque()
        self._asked = 0  # commands that were sent
        self._sent: deque[tuple[float, int]] = deque()  # when, and how many had been sent then
        self._watch: asyncio.TimerHandle | None = None
        self._broken = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, written: Written, reply: Reply) -> None:
        if self._broken or len(self._pending) >= MAX_PENDING:
            _away(written, reply)
            return
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(written)
        self._pending.append(reply)

    def _flush(self) -> None:
        if self._broken:
            return
        written, self._written = self._written, []
        self._asked += len(written)
        self._sent.append((self._loop.time(), self._asked))
        self._transport.write(b"".join([each if type(each) is bytes else each() for each in written]))  # type: ignore[operator]
        if self._watch is None:
            self._watch = self._loop.call_later(self._deadline_s, self._look)

    def data_received(self, data: bytes) -> None:
        pending, next_reply = self._pending, self._reader.gets
        self._reader.feed(data)
        try:
            while (reply := next_reply()) is not False:
                if not pending:
                    self.drop("it sent a reply that nobody asked for")
                    return
                pending.popleft()(reply)
        except hiredis.ProtocolError:
            self.drop("it sent what is no reply")

    def _waiting_since(self) -> float | None:
        """Return when the oldest command that waits was sent; None without one."""
        answered = self._asked + len(self._written) - len(self._pending)
        while self._sent and self._sent[0][1] <= answered:
            self._sent.popleft()
        return self._sent[0][0] if self._sent else None

    def _look(self) -> None:
        """Drop the connection if its oldest command has waited for too long."""
        self._watch = None
        since = self._waiting_since()
        if since is None:
            return
        left = since + self._deadline_s - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self._watch = self._loop.call_later(_GRACE_S, self._look_again, since)

    def _look_again(self, since: float) -> None:
        self._watch = None
        if self._waiting_since() == since:
            self.drop("a reply is late")
        else:
            self._look()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self.drop("it closed the connection")

    def drop(self, why: str) -> None:
        """Close the connection, and fail every command that waits."""
        if self._broken:
            return
        self._broken = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._gone(self)  # before the replies: who is told of it may ask something else
        self._transport.abort()
        self.lost.set()
        error = Unavailable(f"Redis does not answer: {why}; look whether it runs")
        while self._pending:
            self._pending.popleft()(error)
