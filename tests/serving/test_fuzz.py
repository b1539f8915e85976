"""Ten thousand requests, whole and broken, to both applications over real servers: no 5xx, no secret in a log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from redis import Redis
from sqlalchemy import text

from leadre.logs import JsonFormatter
from leadre.pipelines.persister import Persister
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving import mixer, user_server
from leadre.serving.http.application import Application
from leadre.store.records.database import connect, transaction

pytestmark = pytest.mark.slow
SECRET = "geheim"  # as the shop's titles have it
REQUESTS = 10_000
AT_ONCE = 8  # more would wait for one another longer than a write may take
ODD_TEXTS = [
    *("", " ", "\0", "a\nb", "\u2028", "é" * 300, "x" * 257, "x" * 256, "\U0001f600", "\u202eevil", "a\u0301", "%"),
    *("'; DROP TABLE ads;--", "../..", "{{7*7}}", "null", "-1", "1e3", "007", "9" * 19, "9" * 20, str(2**63 - 1)),
    *(str(2**63), f"{SECRET}\r\nx: y", "\ufeff1", "\ufffd"),
]
ODD_SEGMENTS = [
    *(b"%FF", b"%ED%A0%80", b"%C3", b"%", b"%2", b"%zz", b"%00", b"%2F%2F", b"..", b"%2e%2e%2f", b"a/b", b"//"),
    *(b"%0A", b";x=1"),
]
ODD_JSON = [
    *("null", "true", "-1", "1.0", "1e999", "NaN", "-Infinity", "[]", "{}", "01", "9" * 19, "9" * 30, "9" * 4300),
    *("9" * 4301, "[" * 30_000, '{"a":' * 5_000, '""', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"2025-01-01"'),
    *('"2025-01-01T00:00:00+24:00"', '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', "1735689600"),
    *('"1999-12-31T23:59:59Z"', '"2016-12-31T23:59:60Z"', f'"{SECRET}"', f'["{SECRET}"]'),
]
LIMITS = [
    *("0", "-1", "1000000000", "", "1", "1000", "1001", "5.5", "x", "%EF%BC%95", "%00", "%FF", SECRET, "9" * 5000),
    *("+5", "5&limit=7"),
]
METHODS = ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", SECRET]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request; `whole` says that it is right: it must be answered with 200 or 202, under the id `called`."""

    to: str
    method: str = "GET"
    path: bytes
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    whole: bool = False
    called: int | str | None = None


@dataclass(kw_only=True)
class Told:
    """What the answers said."""

    statuses: Counter[int] = field(default_factory=Counter)
    accepted: int = 0
    ads: set[int | str] = field(default_factory=set)


class Generator:
    """Draws requests by a seed."""

    def __init__(self, seed: int, *, shop: Any) -> None:
        self._rng, self._shop = random.Random(seed), shop

    def draw(self) -> Asked:
        """Return the next request."""
        route = self._rng.choices(["ads", "behaviors", "candidates", ""], [45, 35, 15, 5])[0]
        broken = self._rng.random() < 0.6
        if route == "":
            return Asked(to=self._to(), method=self._method(), path=self._nowhere(), headers=self._headers())
        asked = self._whole(route)
        return self._break(asked, route) if broken else asked

    def _whole(self, route: str) -> Asked:
        user = self._rng.choice([*self._shop.users, "7", f"{SECRET}-{self._rng.randrange(50)}", self._unicode()])
        return Asked(
            to="mixer" if route == "candidates" else "user-server",
            method="POST" if route == "behaviors" else "GET",
            path=f"/v1/users/{quote(user, safe='')}/{route}".encode(),
            query=self._rng.choice([b"", b"wait=stored", b"x=1"])
            if route == "behaviors"
            else self._rng.choice([b"", b"limit=3", f"x={SECRET}&limit=1".encode()]),
            headers=self._headers(),
            body=self._body() if route == "behaviors" else b"",
            whole=True,
            called=7 if user == "7" else user,
        )

    def _break(self, asked: Asked, route: str) -> Asked:
        parts = {name: getattr(asked, name) for name in Asked.__dataclass_fields__} | {"whole": False, "called": None}
        breaks: list[Callable[[], dict[str, Any]]] = [
            lambda: {"path": b"/v1/users/" + self._odd_segment() + b"/" + route.encode()},
            lambda: {"method": self._method()},
            lambda: {"query": f"{'wait' if route == 'behaviors' else 'limit'}={self._rng.choice(LIMITS)}".encode()},
        ]
        if route == "behaviors":
            breaks += [lambda: {"body": self._odd_body()}] * 8
            breaks += [lambda: {"headers": (*asked.headers, (b"content-encoding", b"gzip"))}]
        return Asked(**{**parts, **self._rng.choice(breaks)()})

    def _to(self) -> str:
        return self._rng.choice(["mixer", "user-server"])

    def _method(self) -> str:
        return self._rng.choice(METHODS)

    def _unicode(self) -> str:
        alphabet = "aZ5/ %?#&;=+-_.~äß漢字🙂"
        return "x" + "".join(self._rng.choices(alphabet, k=self._rng.randrange(1, 40))) + "x"

    def _odd_segment(self) -> bytes:
        if self._rng.random() < 0.4:
            return self._rng.choice(ODD_SEGMENTS) + self._rng.choice([b"", SECRET.encode()])
        return quote(self._rng.choice(ODD_TEXTS), safe="").encode()

    def _nowhere(self) -> bytes:
        segments = [b"v1", b"users", b"healthz", b"", SECRET.encode(), *ODD_SEGMENTS]
        return b"/" + b"/".join(self._rng.choices(segments, k=self._rng.randrange(1, 6)))

    def _headers(self) -> tuple[tuple[bytes, bytes], ...]:
        some = [
            (b"x-secret", SECRET.encode()),
            (b"authorization", f"Bearer {SECRET}".encode()),
            (b"cookie", b"\xff=" + SECRET.encode()),
            (b"host", b"a b\xe4c:x"),
            (b"content-type", b"text/html; charset=utf-16"),
            (b"content-length", b"-5"),
        ]
        return tuple(self._rng.sample(some, k=self._rng.randrange(3)))

    def _behavior(self) -> dict[str, Any]:
        domain, actions = self._rng.choice([("ad", ["impression", "click"]), ("content", ["watch", "search", "skip"])])
        known = self._shop.ads if domain == "ad" else self._shop.content
        at = datetime.now(UTC) - timedelta(seconds=self._rng.randrange(86_400 * 300))
        offset = self._rng.choice(["Z", "+00:00", "+23:59", "-23:59", "+05:30"])
        return {
            "domain": domain,
            "action": self._rng.choice(actions),
            "item_id": self._rng.choice([*known, 7, self._rng.randrange(2**70), f"{SECRET} {self._rng.random()}"]),
            "occurred_at": f"{at:%Y-%m-%dT%H:%M:%S}{offset}",
            **({"ordinal": self._rng.randrange(2**63)} if self._rng.random() < 0.3 else {}),
        }

    def _body(self) -> bytes:
        behaviors = [self._behavior() for _ in range(self._rng.randrange(1, 4))]
        return json.dumps({"behaviors": behaviors}, ensure_ascii=self._rng.random() < 0.5).encode()

    def _odd_body(self) -> bytes:
        whole, rng = self._body(), self._rng
        place = rng.randrange(len(whole))
        behavior = self._behavior()
        name = rng.choice([*behavior, SECRET, "behaviors", "x - at `$.item_id", "\ud800", "\0"])
        odd = json.dumps({"behaviors": [{**behavior, name: "HERE"}]}).replace('"HERE"', rng.choice(ODD_JSON))
        return rng.choice(
            [
                whole[:place],
                whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :],
                whole[:place] + rng.randbytes(5) + whole[place:],
                odd.encode(),
                odd.encode(),
                odd.encode(),
                rng.choice(ODD_JSON).encode(),
                whole[:-1] + b"," + whole[1:],
                json.dumps({"behaviors": [behavior] * 101}).encode(),
                json.dumps({"behaviors": [{"item_id": True}], "x": SECRET}).encode() + whole,
                whole + b" " * 65_536,
                whole.decode().encode("utf-16"),
                b"\xef\xbb\xbf" + whole,
                f"behaviors={SECRET}".encode(),
            ]
        )


async def answered(app: Application, asked: Asked, chunk: int) -> tuple[int, bytes]:
    """Return an application's status and body; the request's body comes in chunks."""
    chunks = [asked.body[start : start + chunk] for start in range(0, len(asked.body), chunk)] or [b""]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(asked.path.decode("ascii")),  # as uvicorn does it
        "raw_path": asked.path,
        "root_path": "",
        "query_string": asked.query,
        "headers": list(asked.headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def check(asked: Asked, status: int, body: bytes, told: Told) -> None:
    """Check an answer, and remember it."""
    told.statuses[status] += 1
    assert status < 500, (asked, body)
    if asked.method == "HEAD":
        assert body == b""
        return
    answer = json.loads(body)
    if status >= 400:
        assert not asked.whole, (asked, answer)
        assert isinstance(answer["error"], str)
        assert len(answer["error"]) < 500
    elif asked.whole:
        assert answer.get("user_id", asked.called) == asked.called
        told.accepted += answer.get("accepted", 0)
        told.ads |= {ad["ad_id"] for ad in answer.get("ads", ())}


def test_ten_thousand_requests_whole_and_broken_get_no_5xx_and_log_no_secret(
    shop: Any,
    running: Callable[[Application], AbstractAsyncContextManager[httpx.AsyncClient]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    drawn = Generator(12, shop=shop)
    apps = {"user-server": user_server.create_app(shop.settings), "mixer": mixer.create_app(shop.settings)}
    told, logged = Told(), io.StringIO()
    handler = logging.StreamHandler(logged)
    handler.setFormatter(JsonFormatter())

    async def client(requests: int) -> None:
        for number in range(requests):
            asked = drawn.draw()
            for _ in range(5):
                status, body = await answered(apps[asked.to], asked, 1000 if number % 2 else 100_000)
                if status != 503:  # PostgreSQL took longer than a write may, on a busy machine: sent again, as told
                    break
            check(asked, status, body, told)

    async def scenario() -> None:
        async with running(apps["user-server"]), running(apps["mixer"]):
            await client(AT_ONCE)  # before anything was read
            await asyncio.gather(*(client(REQUESTS // AT_ONCE) for _ in range(AT_ONCE)))

    loggers = {logging.getLogger(): logging.WARNING, logging.getLogger("leadre"): logging.DEBUG}
    before = {logger: logger.level for logger in loggers}
    logging.getLogger().addHandler(handler)
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        logging.getLogger("leadre.serving").debug("what is logged is seen here")
        asyncio.run(scenario())
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in before.items():
            logger.setLevel(level)
    written = "".join([logged.getvalue(), *capfd.readouterr()])
    assert "what is logged is seen here" in written
    assert SECRET not in written
    assert shop.secret == SECRET
    assert told.ads <= {7, *shop.ads[1:]}
    assert {7, "SKU-1", "SKU/2", "Straße 3", "SKU-4"} <= told.ads
    assert {200, 202, 400, 404, 405, 413, 415} <= set(told.statuses)
    assert min(told.statuses[200], told.statuses[202], told.statuses[400]) > 1000
    database = connect(shop.settings.database_url)
    with Redis.from_url(shop.settings.redis_url) as redis:
        queue = RefreshQueue.connect(shop.settings.redis_url)
        Persister(redis=redis, database=database, queue=queue).drain()
    with transaction(database) as connection:
        assert (connection.scalar(text("SELECT count(*) FROM behaviors")) or 0) > told.accepted * 0.95
    database.dispose()
