"""The one connection, over a real Redis that hangs, dies and comes back, and over servers that talk nonsense."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest

from leadre.errors import ConfigError, Unavailable
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.redis.wire import Address, address_of, command, second_word

PATIENT_S = 30.0
"""A deadline that a busy machine does not reach."""


@asynccontextmanager
async def kept(url: str, *, deadline_s: float = PATIENT_S) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(address_of(url), deadline_s=deadline_s)
    keeping = asyncio.create_task(connection.keep())
    try:
        yield connection
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def up(connection: RedisConnection) -> None:
    async with asyncio.timeout(60):
        while not connection.up:
            await asyncio.sleep(0.005)


async def failing(connection: RedisConnection) -> None:
    with pytest.raises(Unavailable, match="Redis does not answer"):
        await asyncio.wait_for(connection.call("PING"), 60)


def test_replies_come_in_order_under_a_users_name_in_a_database(own_redis: Any) -> None:
    async def scenario() -> None:
        async with kept(own_redis.url) as connection:
            await up(connection)
            assert await connection.call("ACL", "WHOAMI") == b"anna"
            assert b"db=3" in await connection.call("CLIENT", "INFO")
            calls = [connection.call("ECHO", number) for number in range(5_000)]
            assert await asyncio.gather(*calls) == [b"%d" % number for number in range(5_000)]
            assert await connection.call("SET", b"\x00\r\n", "\r\n\u00fc") == b"OK"
            assert await connection.call("GET", b"\x00\r\n") == "\r\n\u00fc".encode()
            assert await connection.call("GET", "nothing") is None
            assert await connection.call("EVAL", "return {1, 'a', {2}}", 0) == [1, b"a", [2]]

    asyncio.run(scenario())


def test_a_refusal_is_its_commands_alone(own_redis: Any) -> None:
    async def scenario() -> None:
        async with kept(own_redis.url) as connection:
            await up(connection)
            before, wrong, after = (connection.call(*words) for words in (["PING"], ["NONSENSE"], ["PING"]))
            assert (await before, await after) == (b"PONG", b"PONG")
            with pytest.raises(hiredis.ReplyError, match="unknown command"):
                await wrong
            assert connection.dropped == 0

    asyncio.run(scenario())


def test_while_redis_hangs_commands_fail_and_when_it_goes_on_they_are_answered(own_redis: Any) -> None:
    async def scenario() -> None:
        async with kept(own_redis.url, deadline_s=0.5) as connection:
            await up(connection)
            own_redis.stop()
            hanging = [connection.call("ECHO", "late") for _ in range(100)]
            for each in await asyncio.gather(*hanging, return_exceptions=True):
                assert isinstance(each, Unavailable)
            assert not connection.up
            await failing(connection)  # at once: the breaker is open
            own_redis.go_on()
            await up(connection)
            assert await connection.call("ECHO", "new") == b"new"  # not an old one's reply

    asyncio.run(scenario())


def test_when_redis_dies_commands_fail_and_when_it_is_back_they_are_answered(own_redis: Any) -> None:
    async def scenario() -> None:
        async with kept(own_redis.url) as connection:
            for _ in range(3):
                await up(connection)
                assert await connection.call("PING") == b"PONG"
                own_redis.stop()
                waiting = connection.call("PING")
                own_redis.kill()
                with pytest.raises(Unavailable):
                    await asyncio.wait_for(waiting, 60)
                await failing(connection)
                own_redis.begin()
            await up(connection)
            assert await connection.call("PING") == b"PONG"

    asyncio.run(scenario())


def test_a_wrong_password_opens_no_connection(own_redis: Any) -> None:
    async def scenario() -> None:
        async with kept(own_redis.url.replace("geheim", "wrong")) as connection:
            await asyncio.sleep(0.3)
            await failing(connection)

    asyncio.run(scenario())


async def served(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    told: Callable[[RedisConnection], Awaitable[None]],
    *,
    deadline_s: float,
) -> None:
    """Talk to a server that answers a greeting, and then what it likes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with kept(f"redis://127.0.0.1:{port}/0", deadline_s=deadline_s) as connection:
        await up(connection)
        await told(connection)
    server.close()


@pytest.mark.parametrize(
    "said",
    [b"?nonsense\r\n", b"$5\r\nab", b"*2\r\n$1\r\na\r\n", b":1:2\r\n", b"+OK\r\n+AND MORE\r\n", b"\xff" * 100, b""],
    ids=["garbage", "half a text", "half a list", "no number", "unasked", "bytes", "nothing"],
)
def test_what_is_no_whole_reply_costs_the_connection_and_nothing_else(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ASK\r\n")
        writer.write(said)
        await writer.drain()
        await reader.read()

    async def told(connection: RedisConnection) -> None:
        before = connection.dropped
        replied = await asyncio.gather(connection.call("ASK"), return_exceptions=True)
        assert replied == [b"OK"] if b"UNASKED" in said else isinstance(replied[0], Unavailable | bytes)
        async with asyncio.timeout(60):
            while connection.dropped == before:
                await asyncio.sleep(0.005)
        await up(connection)

    asyncio.run(served(answer, told, deadline_s=0.3))


def test_the_oldest_command_that_waits_counts_however_many_were_answered() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(50):
            await reader.readuntil(b"ASK\r\n")
            writer.write(b"+OK\r\n")
        await reader.read()

    async def told(connection: RedisConnection) -> None:
        for _ in range(5):  # several packets, all answered
            assert await asyncio.gather(*(connection.call("ASK") for _ in range(10))) == [b"OK"] * 10
        late = [connection.call("ASK") for _ in range(3)]
        for each in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(each, Unavailable)

    asyncio.run(served(answer, told, deadline_s=1.0))


def test_a_url_says_where_and_how() -> None:
    address = address_of("redis://us%40er:p%3Aw@h:7/5")
    assert (address.host, address.port, address.database) == ("h", 7, 5)
    assert address.greeting == [command("AUTH", "us@er", "p:w"), command("SELECT", 5), command("PING")]
    assert "p:w" not in repr(address)
    assert address_of("redis://:pw@h").greeting == [command("AUTH", "pw"), command("PING")]
    assert address_of("redis://h").tls is None
    sure, trusting = (address_of(f"rediss://h{options}").tls for options in ("", "/0?ssl_cert_reqs=none"))
    assert sure is not None
    assert trusting is not None
    assert (sure.verify_mode, sure.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert trusting.verify_mode == ssl.CERT_NONE
    with pytest.raises(ConfigError):
        address_of("rediss://h/0?ssl_ca_certs=/nowhere.pem")


def test_a_connection_that_was_never_made_fails_at_once() -> None:
    async def scenario() -> None:
        await failing(RedisConnection(Address(host="127.0.0.1", port=1)))

    asyncio.run(scenario())


def test_a_command_names_its_key() -> None:
    for key in (b"k", b"", b"\r\n$1\r\n", b"x" * 1000):
        assert second_word(command("HGET", key, "f")) == key
