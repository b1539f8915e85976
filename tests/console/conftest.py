"""A console over a small live world, in a thread of its own on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import quote, urlencode

import pytest
import redis

from leadre.console.door import FormGuard
from leadre.console.server import create_app
from leadre.pipelines.refresh import refresh_users
from leadre.services import Services
from leadre.serving.http.server import serve
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from leadre.store.release import records as releases
from tests.conftest import ROOT, cloned
from tests.live_world import LiveWorld, add_release, make_live_world

PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Console:
    """A console that answers, and the world it shows."""

    port: int
    live: LiveWorld
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[HTTPResponse, str]:
        return self._ask("GET", path, None, headers or {})

    def post(
        self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[HTTPResponse, str]:
        given = {"content-type": "application/x-www-form-urlencoded", "origin": self.url} | (headers or {})
        return self._ask("POST", path, urlencode(fields), given)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(
                method, quote(path, safe="/?&=%<>,_-+").replace("<", "%3C").replace(">", "%3E"), body, headers
            )
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


@contextmanager
def running(settings: Settings, live: LiveWorld, *, now: datetime, changes: FormGuard | None) -> Iterator[Console]:
    """Serve until the end; the live release is in memory when it begins."""
    app = create_app(settings, clock=lambda: now, changes=changes)
    listening = socket.create_server(("127.0.0.1", 0))
    ready, ended = threading.Event(), threading.Event()
    held: dict[str, object] = {}

    async def run() -> None:
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()
        await serve([(app, listening)], announce=ready.set, stop=held["stop"])  # type: ignore[arg-type]

    def whole() -> None:
        try:
            asyncio.run(run())
        finally:
            ended.set()

    thread = threading.Thread(target=whole)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        console = Console(port=listening.getsockname()[1], live=live, token=changes.token if changes else "")
        for _ in range(600):
            if "<b>in memory</b>" in console.get("/")[1]:
                break
            ended.wait(0.1)
        else:
            raise AssertionError(console.get("/")[1])
        yield console
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)  # type: ignore[attr-defined]
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def world(services: Services, applied_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveWorld]:
    """Twelve users with lists; "r2" is live, "r1" was live before it, "r3" is a candidate. One for a module's tests."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    with cloned(services, applied_database) as database_url:
        settings = Settings(
            home=tmp_path_factory.mktemp("console"),
            database_url=database_url,
            redis_url=services.redis_url,
            feature_repo=ROOT / "feature_repo",
        )
        live = make_live_world(settings)
        database = connect(settings.database_url)
        with transaction(database) as connection:
            for name, seed in (("r2", 6), ("r3", 7)):
                add_release(connection, settings, world=live.world, index=live.index, name=name, seed=seed)
            releases.promote(connection, "r2")
        database.dispose()
        refresh_users(settings, live.user_ids, now=live.world.now)
        yield live


@pytest.fixture(scope="module")
def served(world: LiveWorld) -> Iterator[Console]:
    with running(world.settings, world, now=world.world.now, changes=FormGuard()) as console:
        yield console


@pytest.fixture
def console(served: Console) -> Console:
    """A console that may change releases; "r2" is live when a test begins, and "r1" was before it."""
    database = connect(served.live.settings.database_url)
    with transaction(database) as connection:
        for name in ("r1", "r2"):
            releases.promote(connection, name, force=True)
    database.dispose()
    return served


@pytest.fixture(scope="module")
def read_only(world: LiveWorld) -> Iterator[Console]:
    with running(world.settings, world, now=world.world.now, changes=None) as console:
        yield console
