"""HTTP on the wire: order, keeping and closing connections, bounds, and failures."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest

from leadre.errors import InvalidInput
from leadre.serving.http.application import Application
from leadre.serving.http.messages import Answer, Headers, Refusal, Request, json_answer
from leadre.serving.http.operations import serving
from leadre.serving.http.protocol import IDLE_S, REQUEST_S, TICK_S, Connection, Connections
from leadre.serving.http.routes import Route

Listening = Callable[[Application], AbstractContextManager[int]]


def application(**options: object) -> Application:
    async def later(request: Request) -> Answer:
        await asyncio.sleep(float(request.parameters["seconds"]))
        return json_answer({"after": float(request.parameters["seconds"])})

    def echo(request: Request) -> Answer:
        return json_answer({"bytes": len(request.body), "id": request.request_id})

    def fail(request: Request) -> Answer:
        raise RuntimeError("planted-secret")

    async def refuse(request: Request) -> Answer:
        raise InvalidInput("not this", column="x")

    routes = [
        Route(method="GET", path="/later/{seconds}", handler=later, does="Wait."),
        Route(method="POST", path="/echo", handler=echo, does="Count.", takes=bytes),
        Route(method="GET", path="/fail", handler=fail, does="Fail."),
        Route(method="GET", path="/refuse", handler=refuse, does="Refuse."),
    ]
    return serving("test", routes, counters={}, **options)  # type: ignore[arg-type]


def told(port: int, sent: bytes, *, until_closed: bool = True, answers: int = 1) -> bytes:
    """Return what is answered: all until the connection is closed, or so many answers."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        while part := connection.recv(65_536):
            received += part
            if not until_closed and received.count(b"content-length") >= answers and received.endswith(b"}"):
                break
    return received


def test_answers_keep_the_order_of_the_requests_of_a_connection(listening: Listening) -> None:
    asked = b"".join(
        b"GET /later/%s HTTP/1.1\r\nhost: x\r\n\r\n" % seconds for seconds in (b"0.2", b"0.1", b"0", b"0.05")
    )
    with listening(application()) as port:
        answers = told(port, asked + b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [{"after": 0.2}, {"after": 0.1}, {"after": 0.0}, {"after": 0.05}, {"status": "ok"}]


def test_thousands_of_requests_sent_ahead_are_all_answered(listening: Listening) -> None:
    one = b"GET /healthz HTTP/1.1\r\n\r\n"
    asked = b"GET /later/0.2 HTTP/1.1\r\n\r\n" + one * 5_000 + b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"
    with listening(application()) as port:
        assert told(port, asked).count(b"HTTP/1.1 200 OK") == 5_002


def test_a_body_of_ten_megabytes_is_refused_at_once_and_not_kept(listening: Listening) -> None:
    with listening(application()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get("/healthz")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10485760\r\n\r\n"
        assert told(port, head).startswith(b"HTTP/1.1 413 ")  # before a byte of the body
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            try:
                for _ in range(1_600):
                    connection.sendall(chunk)
            except OSError:
                pass  # it hung up on us
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
        assert client.post("/echo", content=b"x" * 65_536).json()["bytes"] == 65_536
        refused = client.post("/echo", content=b"x" * 65_537)
        assert (refused.status_code, "65536 bytes" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 300_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 600_000, 431),
        (b"\x16\x03\x01 hello", 400),
        (b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ncontent-encoding: gzip\r\n\r\nabc", 415),
        (b"GET /nowhere HTTP/1.0\r\n\r\n", 404),
        (b"PUT /echo HTTP/1.0\r\ncontent-length: 1\r\n\r\nx", 405),
    ],
)
def test_what_is_out_of_bounds_is_refused_and_the_connection_closed(
    listening: Listening, asked: bytes, status: int
) -> None:
    with listening(application()) as port:
        answer = told(port, asked)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_refused_request_keeps_its_connection_where_its_body_ends(listening: Listening) -> None:
    asked = b"POST /nowhere HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"
    with listening(application()) as port:
        answers = told(port, asked)
        assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"404", b"200"]


def test_who_expects_to_be_told_to_continue_is(listening: Listening) -> None:
    with listening(application()) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_failures_say_nothing_and_leave_the_server_well(listening: Listening, caplog: pytest.LogCaptureFixture) -> None:
    with listening(application()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        failed = client.get("/fail")
        assert (failed.status_code, failed.json()) == (500, {"error": "this server failed; its log says where"})
        assert (client.get("/refuse").status_code, client.get("/refuse").json()) == (
            400,
            {"error": "column 'x': not this"},
        )
        assert client.head("/healthz").headers["content-length"] == "15"
        assert client.head("/healthz").content == b""
    assert "planted-secret" not in caplog.text


def test_a_request_id_is_echoed_or_made(listening: Listening) -> None:
    with listening(application()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answer = client.post("/echo", headers={"x-request-id": "a.B-9_"})
        assert (answer.headers["x-request-id"], answer.json()["id"]) == ("a.B-9_", "a.B-9_")
        made = {client.post("/echo", headers={"x-request-id": odd}).json()["id"] for odd in ("", "a b", "x" * 65, "e;")}
        assert len(made) == 4
        assert all(len(each) <= 64 for each in made)


def test_a_guard_turns_away_before_a_body_is_read_but_not_who_watches_the_process(listening: Listening) -> None:
    def guard(headers: Headers) -> None:
        if (b"x-api-key", b"right") not in headers:
            raise Refusal(401, "no key", headers=[(b"www-authenticate", b"Bearer")])

    app = application(guard=guard)
    with listening(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/later/0").status_code == 401
        assert client.get("/later/0").headers["www-authenticate"] == "Bearer"
        assert client.get("/later/0", headers={"x-api-key": "right"}).status_code == 200
        assert {client.get(path).status_code for path in ("/healthz", "/readyz")} == {200}


def test_what_is_being_served_ends_before_the_server_does(listening: Listening) -> None:
    with listening(application()) as port:
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.sendall(b"GET /later/0.5 HTTP/1.1\r\n\r\n")
        time.sleep(0.2)
    with connection:
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


def test_a_head_request_that_is_refused_gets_no_body(listening: Listening) -> None:
    asked = b"HEAD /nowhere HTTP/1.1\r\n\r\nHEAD /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"
    with listening(application()) as port:
        answers = told(port, asked).split(b"\r\n\r\n")
    assert [part[9:12] for part in answers] == [b"404", b"200", b""]


def test_a_second_answer_to_a_request_is_dropped(listening: Listening) -> None:
    def twice(request: Request) -> None:
        for number in (1, 2):
            request.answer(json_answer(number))

    app = serving("test", [Route(method="GET", path="/twice", handler=twice, does="Answer.")], counters={})
    with listening(app) as port:
        answers = told(port, b"GET /twice HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"1", b'{"status":"ok"}']


def test_a_client_that_does_not_read_is_served_no_more_until_it_does(listening: Listening) -> None:
    served = 0

    def large(request: Request) -> Answer:
        nonlocal served
        served += 1
        return Answer(b"%06d" % served + b"x" * 100_000)

    asked = b"GET /large HTTP/1.1\r\n\r\n" * 999 + b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n"
    app = serving("test", [Route(method="GET", path="/large", handler=large, does="Answer.")], counters={})
    with listening(app) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(asked)
        before = -1
        while served != before or not served:  # until nothing more is served
            before = served
            time.sleep(0.2)
        assert served < 500  # what the kernel holds, and one answer more
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    bodies = received.split(b"\r\n\r\n")[1:]
    assert [int(body[:6]) for body in bodies] == list(range(1, 1001))


def test_connections_that_are_silent_for_too_long_are_closed() -> None:
    async def closed(sent: bytes, seconds: float) -> bool:
        connections = Connections()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(application(), connections), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        async with asyncio.timeout(60):
            while not connections or any(connection.busy for connection in connections) != bool(sent):
                await asyncio.sleep(0.01)
        for _ in range(int(seconds / TICK_S)):
            connections.tick()
        try:
            async with asyncio.timeout(60):
                while connections and seconds > 5:
                    await asyncio.sleep(0.01)
            return not connections
        finally:
            writer.close()
            server.close()

    assert asyncio.run(closed(b"GET /later/0 HT", REQUEST_S + 2 * TICK_S))
    assert asyncio.run(closed(b"", IDLE_S + 2 * TICK_S))
    assert not asyncio.run(closed(b"GET /later/0 HT", 5))
