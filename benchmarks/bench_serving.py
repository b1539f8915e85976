"""How fast does the User Server answer? Beside nginx with the same bytes in files, Starlette, and `feast serve`.

LEADRE §4.4.1. One process each, wrk with 32 connections, lists of 20 ads, PostgreSQL and Redis on this machine. Ways
take turns in rounds; figures are medians of the rounds. `cpu_us` is the CPU time that the server's process had for a
request, which other programs on the machine hardly change. `cold` reads more users than a process remembers answers of.
`own_id` reads with an id of its own in each request's headers. `append` alternates: a read, a report of one click into
the stream. The open loop sends 2,000 requests/s, answered or not, and counts from when a request was due; in its last
two runs Redis hangs, and is killed, in the middle. The way `unmeasured` is ours without counting and timing requests.

Needs nginx and wrk (Debian: apt-get install nginx-light wrk); without one, it says so and leaves out what needs it.

Usage: python benchmarks/bench_serving.py [--rounds N] [--seconds S] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from bench_ranking_features import feature_server, make_index, make_records, write_online
from redis import Redis
from servers import own_servers, print_figures
from serving_peers import free_port, nginx_command, wait_for

from leadre.domain.ads import Ad
from leadre.serving.online_lists import MARKER
from leadre.settings import Settings
from leadre.store.records.catalog import upsert_ads
from leadre.store.records.database import connect, migrate, transaction

HERE = Path(__file__).parent
CONNECTIONS, WARM_USERS, COLD_USERS, RATE = 32, 100, 30_000, 2_000
FEAST = {"features": ["retrieved_ads:retrieved_list"], "entities": {"user_id": [7]}}
SCRIPT = """
local requests, turn = {{}}, 0
init = function()
  for user = 0, {users} - 1 do
    requests[#requests + 1] = wrk.format("GET", "/v1/users/" .. user .. "/ads", {headers})
    {more}
  end
end
request = function() turn = turn % #requests + 1; return requests[turn] end
"""
APPEND = """requests[#requests + 1] = wrk.format("POST", "/v1/users/" .. user .. "/behaviors", {}, '%s')"""


OWN_HEADERS = """{["X-Request-Id"] = "r-" .. user, ["User-Agent"] = "a client/1", ["Accept"] = "*/*"}"""


@dataclass(frozen=True)
class Way:
    """A server's process, where it listens, and what wrk asks it."""

    pid: int
    port: int
    script: Path
    path: str = "/"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of wrk, each way and round")
    parser.add_argument("--open-s", type=float, default=10.0, help="seconds of each open loop")
    parser.add_argument("--quick", action="store_true", help="one round of a second, open loops of 2 s, no feast serve")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.open_s = 1, 1.0, 2.0
    for program in ("nginx", "wrk"):
        if find(program) is None:
            print(
                f"{program} is missing: apt-get install {'nginx-light' if program == 'nginx' else program}",
                file=sys.stderr,
            )
    with own_servers() as settings:
        migrate(settings.database_url)
        environment = {**os.environ, **settings.feast_environment()}
        command = [Path(sys.executable).with_name("feast"), "-c", settings.feature_repo, "apply"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        fill(settings)
        figures = measure(
            settings,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            open_s=arguments.open_s,
            feast=not arguments.quick,
        )
    print_figures(figures, as_json=arguments.json)


def find(program: str) -> str | None:
    """Return where a program is, the folders of administrators included."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def fill(settings: Settings) -> None:
    """Put lists of all users online, and their ads into the catalog."""
    now = datetime.now(UTC)
    index = make_index(3_000)
    records = make_records(index, now=now)
    users = np.arange(COLD_USERS)
    write_online(settings.redis_url, users, [records[user % len(records)] for user in users.tolist()], now=now)
    with Redis.from_url(settings.redis_url) as client:
        client.set(MARKER, "whole")
    database = connect(settings.database_url)
    with transaction(database) as connection:
        upsert_ads(connection, [_ad(ad_id, now=now) for ad_id in index.ad_ids.tolist()])
    database.dispose()


def _ad(ad_id: int, *, now: datetime) -> Ad:
    return Ad(
        ad_id=ad_id,
        source_id=str(ad_id),
        name="An ad",
        ad_type="",
        first_category="",
        second_category="",
        attributes=(),
        advertiser_id=1,
        bid=1.0,
        created_at=now,
    )


def measure(settings: Settings, *, rounds: int, seconds: float, open_s: float, feast: bool) -> dict[str, float]:
    """Return the figures of filled servers."""
    figures: dict[str, float] = {}
    environment = {
        **os.environ,
        **settings.feast_environment(),
        "LEADRE_HOME": str(settings.home),
        "LEADRE_DATABASE_URL": settings.database_url,
        "LEADRE_REDIS_URL": settings.redis_url,
        "LEADRE_FEATURE_REPO": str(settings.feature_repo),
    }
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="leadre-bench-")))
        folder.chmod(0o755)
        ours, unmeasured, starlette = (
            running.enter_context(peer(which, environment)) for which in ("ours", "unmeasured", "starlette")
        )
        warm = script(folder, "warm", users=WARM_USERS)
        click = {"domain": "ad", "action": "click", "item_id": 7, "occurred_at": datetime.now(UTC).isoformat()}
        append = APPEND % json.dumps({"behaviors": [click]})
        with urllib.request.urlopen(f"http://127.0.0.1:{ours[1]}/v1/users/7/ads") as answer:
            body = answer.read()
        assert json.loads(body)["ads"], "the catalog was not read"
        figures["answer_bytes"] = len(body)
        if find("wrk"):
            ways = {
                "ours": Way(*ours, warm),
                "unmeasured": Way(*unmeasured, warm),
                "cold": Way(*ours, script(folder, "cold", users=COLD_USERS)),
                "own_id": Way(*ours, script(folder, "own_id", users=WARM_USERS, headers=OWN_HEADERS)),
                "append": Way(*ours, script(folder, "append", users=WARM_USERS, more=append)),
                "starlette": Way(*starlette, warm),
            }
            if program := find("nginx"):
                ways["nginx"] = Way(*running.enter_context(nginx(program, folder, body)), warm)
            if feast:
                ways["feast_serve"] = running.enter_context(feast_serve(settings, folder, environment))
            figures |= closed_loop(ways, rounds=rounds, seconds=seconds)
        calm = open_loop(ours[1], seconds=open_s)
        figures |= {"open_loop_p50_ms": calm["p50_ms"], "open_loop_p99_ms": calm["p99_ms"]}
        figures |= faults(settings, ours[1], seconds=open_s)
    return figures


def closed_loop(ways: Mapping[str, Way], *, rounds: int, seconds: float) -> dict[str, float]:
    """Return requests a second, milliseconds and CPU time of each way, and ratios."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first round warms everything up
        for name, way in ways.items():
            told = wrk(way, seconds=seconds if number else min(seconds, 2.0))
            if number:
                found[name].append(told)
    figures = {
        f"{name}_{what}": median(each[what] for each in told) for name, told in found.items() for what in told[0]
    }

    def ratio(one: str, other: str) -> float:
        return median(a["rps"] / b["rps"] for a, b in zip(found[one], found[other], strict=True))

    def by_cpu(one: str, other: str) -> float:
        return median(b["cpu_us"] / a["cpu_us"] for a, b in zip(found[one], found[other], strict=True))

    pairs = [
        ("ours", "nginx"),
        ("cold", "nginx"),
        ("ours", "starlette"),
        ("cold", "starlette"),
        ("ours", "feast_serve"),
    ]
    pairs += [("append", "ours"), ("ours", "unmeasured")]
    figures |= {f"{one}_over_{other}": ratio(one, other) for one, other in pairs if other in found}
    pairs = [("ours", "nginx"), ("own_id", "nginx"), ("append", "ours")]
    return figures | {f"{one}_over_{other}_by_cpu": by_cpu(one, other) for one, other in pairs if other in found}


def wrk(way: Way, *, seconds: float) -> dict[str, float]:
    """Run wrk once."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency", "-s", str(way.script)]
    before = cpu_s(way.pid)
    said = subprocess.run(
        [*command, f"http://127.0.0.1:{way.port}{way.path}"], check=True, capture_output=True, text=True
    ).stdout
    worked = cpu_s(way.pid) - before
    assert "Non-2xx" not in said, said
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    requests = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    return {
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]),  # type: ignore[index]
        "p99_ms": float(p99) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit],
        "cpu_us": worked / max(requests, 1) * 1e6,
    }


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has had."""
    spent = Path(f"/proc/{pid}/schedstat")  # in nanoseconds; /proc/PID/stat counts hundredths of a second
    return int(spent.read_text().split()[0]) / 1e9


def script(folder: Path, name: str, *, users: int, more: str = "", headers: str = "nil") -> Path:
    """Write a script of wrk that asks for users in turn."""
    path = folder / f"{name}.lua"
    path.write_text(SCRIPT.format(users=users, more=more, headers=headers))
    return path


@contextmanager
def peer(which: str, environment: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Run a server of serving_peers.py; give its process and port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, HERE / "serving_peers.py", which, str(port)], env=dict(environment))
    try:
        wait_for(port)
        time.sleep(2)  # for the catalog
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def nginx(program: str, folder: Path, body: bytes) -> Iterator[tuple[int, int]]:
    """Run nginx with the same bytes for every user; give its worker's process and port."""
    for user in range(WARM_USERS):
        file = folder / "root/v1/users" / str(user) / "ads"
        file.parent.mkdir(parents=True)
        file.write_bytes(body)
    port = free_port()
    process = subprocess.Popen(nginx_command(program, folder, port=port))
    try:
        wait_for(port)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(children[0]), port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def feast_serve(settings: Settings, folder: Path, environment: Mapping[str, str]) -> Iterator[Way]:
    """Run `feast serve` with one worker and no access log."""
    os.environ.update(environment)
    path = folder / "feast.lua"
    path.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{json.dumps(FEAST)}'\nwrk.headers['Content-Type'] = 'application/json'\n"
    )
    with feature_server(settings) as url:
        yield Way(os.getpid(), int(url.rpartition(":")[2]), path, "/get-online-features")


def open_loop(port: int, *, seconds: float) -> dict[str, float]:
    """Run open_loop.py beside, at the rate."""
    return finished(started(port, seconds=seconds))


def started(port: int, *, seconds: float) -> subprocess.Popen[str]:
    """Begin open_loop.py."""
    command = [sys.executable, HERE / "open_loop.py", str(port), str(WARM_USERS), str(RATE), str(seconds)]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return what open_loop.py found."""
    said, _ = process.communicate(timeout=120)
    found: dict[str, float] = json.loads(said)
    return found


def faults(settings: Settings, port: int, *, seconds: float) -> dict[str, float]:
    """Let Redis hang, then kill it, each in the middle of an open loop."""
    figures: dict[str, float] = {}
    with Redis.from_url(settings.redis_url) as client:
        pid = int(client.info("server")["process_id"])
    for name, blow in (("hang", signal.SIGSTOP), ("kill", signal.SIGKILL)):
        asking = started(port, seconds=seconds)
        time.sleep(seconds / 2)
        os.kill(pid, blow)
        told = finished(asking)
        if name == "hang":
            os.kill(pid, signal.SIGCONT)
            time.sleep(1)
        figures |= {
            f"{name}_ok_ratio": told["ok"] / told["sent"],
            f"{name}_degraded_ratio": told["degraded"] / told["sent"],
            f"{name}_p99_ms": told["p99_ms"],
            f"{name}_max_ms": told["max_ms"],
        }
    return figures


if __name__ == "__main__":
    main()
