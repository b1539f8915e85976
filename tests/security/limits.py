"""What a huge request or title costs: how long until it is refused, and how much the memory grows.

`python -m tests.security.limits --json` starts a User Server on the servers of the environment (LEADRE_DATABASE_URL,
LEADRE_REDIS_URL) and prints, for each case, milliseconds to the refusal (median and largest of `--rounds`), those of
them that the server ran, and MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from select import select

from leadre.domain.ads import Ad
from leadre.errors import InvalidInput
from leadre.indexing.texts.description import describe
from leadre.prompts.render import clean
from leadre.store.importers.tabular.rejected import BadValue
from leadre.store.importers.tabular.values import words

MIB = 1 << 20
TITLE = ("<a_1> ä " * MIB)[:MIB]
PATH = "/v1/users/5/behaviors"
CHUNK = 256 * 1024


def body_of_bytes() -> Iterator[bytes]:
    """10 MB of JSON."""
    yield b'{"behaviors": [{"item_id": "'
    for _ in range(10 * MIB // CHUNK):
        yield b"x" * CHUNK


def body_of_behaviors() -> Iterator[bytes]:
    """A million behaviors."""
    one = b'{"domain":"ad","action":"click","item_id":1,"occurred_at":"2025-03-01T12:00:00Z"},'
    yield b'{"behaviors": ['
    for _ in range(1000):
        yield one * 1000


def body_of_title() -> Iterator[bytes]:
    """One behavior whose item has a name of 1 MB."""
    yield json.dumps({"behaviors": [{"item_id": TITLE}]}).encode()


def body_of_small_behaviors() -> Iterator[bytes]:
    """As many behaviors as a body may have bytes for."""
    yield b'{"behaviors":[' + b"{}," * 21_000 + b"{}]}"


BODIES: dict[str, Callable[[], Iterator[bytes]]] = {
    "10 MB body": body_of_bytes,
    "1,000,000 behaviors": body_of_behaviors,
    "1 MB title": body_of_title,
    "21,001 behaviors in 64 KiB": body_of_small_behaviors,
}


@contextmanager
def user_server(environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a User Server; give its process id and its port."""
    command = [sys.executable, "-m", "leadre", "serve", "user-server", "--port", "0"]
    process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = re.search(r"on http://127\.0\.0\.1:([0-9]+)", process.stdout.readline())
        assert found
        yield process.pid, int(found[1])
    finally:
        process.terminate()
        process.communicate(timeout=60)


def refused(port: int, body: Callable[[], Iterator[bytes]], *, chunked: bool) -> tuple[int, float]:
    """Send a body until the server answers; return the status, and the seconds from the first byte to the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        length = sum(map(len, body()))
        says = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\n{says}\r\n\r\n".encode()
        connection.setblocking(False)
        began, pending = time.perf_counter(), memoryview(head)
        parts = chain(body(), [b""] if chunked else [])  # an empty chunk is the last one
        while True:
            select([connection], [connection] if pending else [], [], 0 if not pending else 60)
            with suppress(BlockingIOError):
                if answer := connection.recv(4096):
                    return int(answer.split()[1]), time.perf_counter() - began
                raise AssertionError("hung up without an answer")
            if not pending and (part := next(parts, None)) is not None:
                pending = memoryview(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                if pending:
                    pending = pending[connection.send(pending[:CHUNK]) :]


def resident(pid: int, what: str) -> float:
    """Return a process's memory in MiB: `VmRSS` now, `VmHWM` the most since the mark was set back."""
    found = re.search(rf"{what}:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def on_cpu_ms(pid: int) -> float:
    """Return how long a process's main thread has run: what a refusal costs, however busy the machine is."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def over_http(environment: Mapping[str, str], *, rounds: int) -> dict[str, dict[str, float]]:
    """Send each body several times; see the module."""
    found = {}
    with user_server(environment) as (pid, port):
        for _ in range(50):  # a server that has just begun still grows
            refused(port, lambda: iter([b"{}"]), chunked=False)
        for name, body in BODIES.items():
            for chunked in (False, True):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # sets VmHWM back
                before, ran = resident(pid, "VmRSS"), on_cpu_ms(pid)
                answers = [refused(port, body, chunked=chunked) for _ in range(rounds)]
                assert {status for status, _ in answers} <= {400, 413}
                found[f"{name}, {'chunked' if chunked else 'announced'}"] = {
                    "median_ms": round(statistics.median(seconds for _, seconds in answers) * 1000, 2),
                    "most_ms": round(max(seconds for _, seconds in answers) * 1000, 2),
                    "cpu_ms": round((on_cpu_ms(pid) - ran) / rounds, 2),
                    "grew_mib": round(max(0.0, resident(pid, "VmHWM") - before), 1),
                }
    return found


def _describe() -> None:
    ad = Ad(
        ad_id=1,
        source_id="1",
        name=TITLE,
        ad_type=TITLE,
        first_category=TITLE,
        second_category=TITLE,
        attributes=(TITLE,) * 100,
        advertiser_id=1,
        bid=1.0,
        created_at=datetime(2025, 3, 1, tzinfo=UTC),
    )
    assert len(describe(ad)) < 20_000


def _import() -> None:
    try:
        words(TITLE)
    except BadValue:
        return
    raise AssertionError("a title of 1 MB was taken")


def _prompt() -> None:
    clean.cache_clear()
    assert len(clean(TITLE)) <= 256


def _id() -> None:
    from leadre.domain.identity import id_of

    try:
        id_of(TITLE)
    except InvalidInput:
        return
    raise AssertionError("an id of 1 MB was taken")


def in_process(*, rounds: int) -> dict[str, dict[str, float]]:
    """Give a title of 1 MB to import, index, prompt and id; as an ad's every field where there are several."""
    found = {}
    for name, take in {"import": _import, "index": _describe, "prompt": _prompt, "id": _id}.items():
        take()
        before, times, ran = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, [], -time.thread_time()
        for _ in range(rounds):
            began = time.perf_counter()
            take()
            times.append(time.perf_counter() - began)
        ran += time.thread_time()
        found[f"1 MB title, {name}"] = {
            "median_ms": round(statistics.median(times) * 1000, 2),
            "cpu_ms": round(ran / rounds * 1000, 2),
            "most_ms": round(max(times) * 1000, 2),
            "grew_mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = over_http(os.environ, rounds=given.rounds) | in_process(rounds=given.rounds)
    if given.json:
        print(json.dumps(figures))
    else:
        print(f"{'':45}{'median ms':>10}{'most ms':>10}{'CPU ms':>10}{'MiB more':>10}")
        for name, it in figures.items():
            print(f"{name:45}{it['median_ms']:>10}{it['most_ms']:>10}{it['cpu_ms']:>10}{it['grew_mib']:>10}")
