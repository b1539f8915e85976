"""The real applications over real servers, Redis behind a proxy that can be cut or frozen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis
from sqlalchemy import text

from leadre.domain.ads import Ad
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import id_of
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import behavior_stream, mixer, user_server
from leadre.serving.http.application import Application
from leadre.serving.online_lists import MARKER
from leadre.settings import Settings
from leadre.store.records import catalog, events
from leadre.store.records.database import connect, transaction

Running = Callable[[Application], AbstractAsyncContextManager[httpx.AsyncClient]]
Until = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.slow
CLICK = {"domain": "ad", "action": "click", "item_id": 7, "occurred_at": "2025-03-01T12:00:00Z"}
KNOWN = {"unknown_ads": 0, "unknown_content_items": 0}


class Proxy:
    """Passes bytes on to Redis until it is frozen or cut; entered, it listens, and left, nothing of it stays open."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        account = self._target.netloc.rpartition(":")[0].rpartition("@")[0]
        self.url = self._target._replace(netloc=f"{account}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            to_reader, to_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
            writers.append(to_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, to_writer))
                both.create_task(self._pump(to_reader, writer))
        except (asyncio.CancelledError, ExceptionGroup):
            pass  # cut, or left by the other side
        finally:
            for open_one in writers:
                open_one.transport.abort()
            for open_one in writers:
                with suppress(OSError):
                    await open_one.wait_closed()
            self._connections.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the other side left")

    def freeze(self) -> None:
        """Keep connections open and pass nothing on."""
        self._flowing.clear()

    async def cut(self) -> None:
        """Refuse new connections and close every open one, those half made included."""
        self._server.close()
        while self._connections:
            for task in self._connections:
                task.cancel()
            await asyncio.wait(self._connections)


@pytest.fixture
def applied(applied: Settings) -> Settings:
    """The settings, over a database that holds the registry, two ads and a click."""
    now = datetime.now(UTC)
    database = connect(applied.database_url)
    with transaction(database) as connection:
        inventory = [
            Ad(
                ad_id=id_of(source_id),
                source_id=source_id,
                name=f"ad {source_id}",
                ad_type="",
                first_category="",
                second_category="",
                attributes=(),
                advertiser_id=1,
                bid=1.0,
                created_at=now,
            )
            for source_id in ("7", "SKU-8")
        ]
        catalog.upsert_ads(connection, inventory)
        click = Behavior(user_id=1, domain=Domain.AD, action=Action.CLICK, item_id=id_of("SKU-8"), occurred_at=now)
        events.append_behaviors(connection, [click], arrived_at=now)
    database.dispose()
    with Redis.from_url(applied.redis_url) as client:
        client.set(MARKER, "whole")
    return applied


def test_requests_are_answered_while_redis_hangs_and_after_it_died(
    applied: Settings, running: Running, until: Until
) -> None:
    async def scenario() -> None:
        async with Proxy(applied.redis_url) as proxy:
            behind = replace(applied, redis_url=proxy.url)
            served, mixed = user_server.create_app(behind), mixer.create_app(behind)
            async with running(served) as users, running(mixed) as candidates:

                async def healthy() -> bool:
                    answer = (await users.get("/v1/users/5/ads")).json()
                    mix = (await candidates.get("/v1/users/5/candidates")).json()
                    return not answer["degraded"] and not mix["degraded"] and mix["ads"] != []

                async def degraded() -> None:
                    started = time.monotonic()
                    answer = await users.get("/v1/users/5/ads")
                    assert (answer.status_code, answer.json()["degraded"]) == (200, True)
                    mix = (await candidates.get("/v1/users/5/candidates")).json()
                    assert mix["failed_branches"] == ["leadre", "covisitation"]
                    assert mix["ads"] == [{"ad_id": "SKU-8", "branches": ["popular"], "source": "popular"}]
                    assert time.monotonic() - started < 2

                await until(healthy, seconds=60)
                answer = await users.post("/v1/users/5/behaviors", json={"behaviors": [CLICK]})
                assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "stored": False})
                later = {**CLICK, "occurred_at": "2025-03-01T12:00:02Z"}
                answer = await users.post("/v1/users/5/behaviors?wait=stored", json={"behaviors": [later]})
                told = {"accepted": 1, "stored": True, "queued": True, **KNOWN}
                assert (answer.status_code, answer.json()) == (202, told)
                assert RefreshQueue.connect(applied.redis_url).depth() == 1
                with Redis.from_url(applied.redis_url) as client:
                    assert behavior_stream.length(client) == 1

                proxy.freeze()
                for _ in range(5):
                    await degraded()
                await proxy.cut()
                for _ in range(5):
                    await degraded()
                later = {**CLICK, "occurred_at": "2025-03-01T12:00:01Z"}
                answer = await users.post("/v1/users/6/behaviors", json={"behaviors": [later]})
                assert (answer.status_code, answer.json()) == (202, {**told, "queued": False})
                assert 'what="unqueued"} 1.0' in (await users.get("/metrics")).text

    asyncio.run(scenario())
    database = connect(applied.database_url)
    with transaction(database) as connection:
        assert connection.scalar(text("SELECT count(*) FROM behaviors WHERE user_id IN (5, 6)")) == 2
    database.dispose()


def test_a_server_that_starts_without_redis_answers_degraded(applied: Settings, running: Running) -> None:
    async def scenario() -> None:
        async with running(user_server.create_app(replace(applied, redis_url="redis://127.0.0.1:1/0"))) as users:
            for _ in range(3):
                answer = await users.get("/v1/users/5/ads")
                assert (answer.status_code, answer.json()["degraded"]) == (200, True)
            assert (await users.get("/healthz")).status_code == 200

    asyncio.run(scenario())


def test_servers_that_start_without_postgresql_answer_empty_and_degraded(applied: Settings, running: Running) -> None:
    down = replace(applied, database_url="postgresql://nobody@127.0.0.1:1/nothing")

    async def scenario() -> None:
        async with running(user_server.create_app(down)) as users, running(mixer.create_app(down)) as candidates:
            for _ in range(3):
                answer = await users.get("/v1/users/user_5/ads")
                assert (answer.status_code, answer.json()) == (200, {"user_id": "user_5", "ads": [], "degraded": True})
                mix = await candidates.get("/v1/users/user_5/candidates")
                assert (mix.status_code, mix.json()["ads"], mix.json()["degraded"]) == (200, [], True)
            refused = await users.post("/v1/users/user_5/behaviors", json={"behaviors": [CLICK]})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert 'what="failed_catalog"} 3.0' in (await candidates.get("/metrics")).text

    asyncio.run(scenario())
