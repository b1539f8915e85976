"""`leadre serve` as an operator starts it: what it says, what it refuses, and what broken HTTP does to it."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from leadre.cli.serve import serve
from leadre.errors import ConfigError
from leadre.settings import Settings

pytestmark = pytest.mark.slow
SECRET = "geheim"
REQUESTS = 300


@contextmanager
def serving(settings: Settings, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str], list[str]]]:
    """Run `leadre serve ...`; give it, the first lines it prints, and all it writes to standard error in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "leadre", "serve", *arguments],
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    complained: list[str] = []
    reading = threading.Thread(target=lambda: complained.append(process.stderr.read()))  # type: ignore[union-attr]
    reading.start()
    try:
        yield process, [process.stdout.readline().rstrip() for _ in range(4)], complained
    finally:
        process.terminate()
        process.wait(20)
        reading.join()
        process.stdout.close()
        process.stderr.close()


def environment(settings: Settings) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("LEADRE_")}
    urls = {"LEADRE_DATABASE_URL": settings.database_url, "LEADRE_REDIS_URL": settings.redis_url}
    return {**inherited, **urls, "LEADRE_HOME": str(settings.home), "LEADRE_FEATURE_REPO": str(settings.feature_repo)}


def port_of(line: str) -> int:
    return int(line.partition(",")[0].rpartition(":")[2])


def broken_http(rng: random.Random) -> bytes:
    """Return what is not quite an HTTP request, or ends before it should."""
    body = json.dumps({"behaviors": [{"domain": "ad", "action": "click", "item_id": SECRET}]}).encode()
    path, length = b"/v1/users/" + SECRET.encode() + b"/behaviors", b"%d" % len(body)
    whole = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: " + length + b"\r\n\r\n" + body
    place = rng.randrange(len(whole))
    return rng.choice(
        [
            whole[:place],
            whole[:place] + rng.randbytes(3) + whole[place:],
            whole[:place] + whole[place + 1 :],
            whole.replace(length, b"-1", 1),
            whole.replace(length, b"99999999999999999999", 1),
            whole.replace(length, length + b"\r\ncontent-length: 3", 1),
            whole.replace(b"content-length: " + length, b"transfer-encoding: chunked\r\n\r\nzz", 1),
            whole.replace(b"HTTP/1.1", b"HTTP/9.9", 1),
            whole.replace(path, b"/v1/users/\xff\xfe/ads", 1),
            whole.replace(path, b"http://x/v1/users/5/ads", 1),
            whole.replace(path, b"/v1/users/" + b"a" * 70_000 + b"/ads", 1),
            whole.replace(b"host: x", b"host: x\r\nx-secret: " + SECRET.encode() * 20_000, 1),
            whole.replace(b"host: x", b"host: x\r\nexpect: 100-continue", 1),
            whole.replace(b"host: x", b"host: x\r\nupgrade: websocket\r\nconnection: upgrade", 1),
            whole * 3,
            b"GET /v1/users/5/ads\r\n\r\n",
            b"\x16\x03\x01" + rng.randbytes(200),
            rng.randbytes(rng.randrange(1, 500)),
        ]
    )


def told(port: int, sent: bytes) -> bytes:
    """Return all that a server answers to some bytes, after which nothing more comes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                received += part
        except ConnectionError:
            pass  # it hung up on what it could not read
    return received


def test_a_started_server_says_where_it_is_what_is_live_and_what_to_try(shop: Any) -> None:
    with serving(shop.settings, "user-server", "--port", "0") as (process, said, complained):
        assert "User Server on http://127.0.0.1:" in said[0]
        assert said[0].endswith(", live release first")
        port = port_of(said[0])
        read, report = (shlex.split(line) for line in said[2:])
        assert httpx.get(read[1]).json()["user_id"] in shop.users
        answer = httpx.post(report[1], content=report[3].encode())
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "stored": False})

        taken = [sys.executable, "-m", "leadre", "serve", "mixer", "--port", str(port)]
        refused = subprocess.run(taken, env=environment(shop.settings), capture_output=True, text=True, check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1
        assert f"127.0.0.1:{port}: address already in use; choose another --port" in refused.stderr

        rng = random.Random(12)
        statuses = set()
        for _ in range(REQUESTS):
            for line in told(port, broken_http(rng)).split(b"HTTP/1.1 ")[1:]:
                statuses.add(int(line[:3]))
        assert {400} <= statuses <= {100, 200, 202, 400, 404, 405, 413, 414, 431}, statuses
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"}
        assert process.poll() is None
    assert SECRET not in complained[0]
    assert "Traceback" not in complained[0]


def test_several_processes_share_a_port_and_one_that_dies_is_begun_anew(shop: Any) -> None:
    admin = free_port_pair()
    options = ("--port", "0", "--workers", "2", "--admin-port", str(admin))
    with serving(shop.settings, "user-server", *options) as (process, said, _):
        port = port_of(said[0])

        def served() -> set[str]:
            """Return the processes that answer: a request id begins with its process's own name."""
            asked = (httpx.get(f"http://127.0.0.1:{port}/healthz").headers["x-request-id"] for _ in range(60))
            return {each.partition("-")[0] for each in asked}

        eventually(lambda: len(served()) == 2)
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 404
        for number in range(2):
            eventually(lambda number=number: "leadre_requests_total" in metrics(admin + number))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        before = served()
        eventually(lambda: len(served()) == 2 and served() != before)
        assert process.poll() is None


def metrics(port: int) -> str:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    except httpx.TransportError:
        return ""


def free_port_pair() -> int:
    """Return a port that is free, and the next one with it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            if true():
                return
        except httpx.TransportError:
            pass  # of the process that was killed
        assert time.monotonic() < end, "not in time"
        time.sleep(0.1)


def test_a_server_without_a_release_says_so(settings: Settings) -> None:
    with serving(settings, "mixer", "--port", "0") as (_, said, _):
        assert said[0].endswith("live release none yet: train one with `leadre train`")
        assert "/v1/users/user_5/candidates" in said[2]
        assert httpx.get(f"http://127.0.0.1:{port_of(said[0])}/").json()["name"] == "leadre mixer"


def test_a_server_without_a_database_says_so_and_answers(settings: Settings) -> None:
    down = replace(settings, database_url="postgresql://nobody@127.0.0.1:1/nothing")
    with serving(down, "user-server", "--port", "0") as (_, said, complained):
        assert "live release unknown: PostgreSQL at 127.0.0.1:1/nothing" in said[0]
        answer = httpx.get(f"http://127.0.0.1:{port_of(said[0])}/v1/users/user_5/ads")
        assert (answer.status_code, answer.json()["degraded"]) == (200, True)
    assert "Traceback" not in complained[0]


@pytest.mark.parametrize("host", ["x" * 100, "203.0.113.1"], ids=["too long a name", "not ours"])
def test_an_address_that_cannot_be_had_is_one_line_with_the_remedy(settings: Settings, host: str) -> None:
    served = CliRunner().invoke(serve, ["mixer", "--host", host, "--port", "0"], env=environment(settings))
    assert isinstance(served.exception, ConfigError)
    assert re.search(r"cannot listen on .*; choose another --port or --host", str(served.exception))
