"""The engine server over HTTP: its routes, its bounds, and what it does not import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from leadre.decoding.stub import StubEngine
from leadre.decoding.wire import PATH, Answered, Asked, pack_prompts, unpack_beams
from leadre.serving import engine_server
from leadre.serving.engine_server import EngineServer
from tests.decoding.remote_server import Shelf, index_of

INDEX = index_of(40)


def request_of(prompts: list[list[int]], **other: Any) -> bytes:
    lengths, tokens = pack_prompts(prompts)
    filters = np.full(len(prompts), -1, "<i4").tobytes()
    asked = Asked("r", INDEX.version, 0, len(INDEX), 3, lengths, tokens, (), filters)
    return msgspec.msgpack.encode(msgspec.structs.replace(asked, **other))


def called(*requests: tuple[str, str, bytes], shelf: Shelf | None = None) -> list[httpx.Response]:
    served = shelf or Shelf()
    if shelf is None:
        served.put("r", StubEngine(INDEX, vocabulary_size=30, longest_prompt=9), INDEX)

    async def call() -> list[httpx.Response]:
        transport = httpx.ASGITransport(EngineServer(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60) as client:
            return [await client.request(method, path, content=body) for method, path, body in requests]

    try:
        return asyncio.run(call())
    finally:
        served.close()


def test_token_ids_go_in_and_s_ids_come_out() -> None:
    [answer] = called(("POST", PATH, request_of([[1, 2], [3]])))

    assert answer.status_code == 200
    beams = unpack_beams(msgspec.msgpack.decode(answer.content, type=Answered))
    assert beams == StubEngine(INDEX, vocabulary_size=30).generate([[1, 2], [3]], beam_width=3)


def test_health_names_the_release_its_index_and_the_load() -> None:
    health, ready = called(("GET", "/healthz", b""), ("GET", "/readyz", b""))

    assert health.json() == {
        "status": "ok",
        "release": "r",
        "index_version": "v1",
        "revision": 0,
        "ads": 40,
        "waiting": 0,
        "running": 0,
    }
    assert (health.status_code, ready.status_code) == (200, 200)


def test_a_server_without_a_release_is_up_but_not_ready() -> None:
    health, ready, asked, metrics = called(
        ("GET", "/healthz", b""),
        ("GET", "/readyz", b""),
        ("POST", PATH, request_of([[1]])),
        ("GET", "/metrics", b""),
        shelf=Shelf(),
    )

    assert (health.status_code, health.json()["status"]) == (200, "loading")
    assert ready.status_code == 503
    assert asked.status_code == 409
    assert "leadre_engine_ready 0" in metrics.text


def test_an_autoscaler_reads_how_many_prompts_wait() -> None:
    *_, metrics = called(("POST", PATH, request_of([[1], [2]])), ("POST", PATH, b"no"), ("GET", "/metrics", b""))

    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        "leadre_engine_waiting 0",
        "leadre_engine_running 0",
        "leadre_engine_ready 1",
        "leadre_engine_prompts_total 2",
        'leadre_engine_requests_total{outcome="answered"} 1',
        'leadre_engine_requests_total{outcome="refused"} 1',
    ):
        assert f"{line}\n" in metrics.text


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "no request of an engine"),
        (b"\xc1", 400, "no request of an engine"),
        (msgspec.msgpack.encode({"prompts": []}), 400, "no request of an engine"),
        (request_of([[1]], beam_width=0), 400, "at least one beam"),
        (request_of([[1]], tokens=b"abc"), 400, "no array"),
        (request_of([[1]], filters=b""), 400, "0 filters for 1 prompts"),
        (request_of([[1]], filters=bytes(4)), 400, "filters 0 to 0 of 0"),
        (request_of([[]]), 400, "empty"),
        (request_of([[1] * 10]), 400, "10 tokens, the model takes 9"),
        (request_of([[1]], index_version="other"), 409, "not served here"),
        (request_of([[1]], revision=3), 409, "not served here"),
        (request_of([[1]], release="other"), 409, "not served here"),
        (request_of([[1]] * 1025), 503, "1025 more would be over the 1024"),
    ],
)
def test_a_request_that_cannot_be_decoded_is_refused_with_the_reason(body: bytes, status: int, error: str) -> None:
    [answer] = called(("POST", PATH, body))

    assert answer.status_code == status
    assert error in answer.json()["error"]
    assert ("retry-after" in answer.headers) is (status == 503)


def test_a_body_beyond_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_server, "MOST_BYTES", 1 << 20)
    [answer] = called(("POST", PATH, bytes((1 << 20) + 1)))
    assert answer.status_code == 413
    assert "send fewer prompts" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", "/healthz"), ("GET", "/"), ("GET", "/v1/users")])
def test_there_is_nothing_else(method: str, path: str) -> None:
    [answer] = called((method, path, b""))
    assert answer.status_code == 404


def test_it_loads_where_feast_cannot_be_installed() -> None:
    program = (
        "import sys, leadre.serving.engine_server, leadre.serving.engine_host, leadre.decoding.release;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    forbidden = {"feast", "sqlalchemy", "psycopg2", "redis", "celery", "starlette", "torch", "transformers"}
    assert forbidden & set(loaded) == set()
