"""Engine servers and proxies in processes of their own, for `bench_balancer.py`: real HTTP and Redis, a made-up model.

An engine here is `leadre serve engine`'s application over a model that sleeps as long as a batch would take, so that
two cores carry a whole fleet. A proxy sends requests at the times that a seed says, whether or not earlier ones are
answered.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from leadre.decoding.batcher import MicroBatcher
from leadre.decoding.engine import beams_at
from leadre.decoding.remote import RemoteEngine
from leadre.decoding.wire import Asked
from leadre.domain.retrieval import Beam
from leadre.errors import LeadreError
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.balancer.balancer import Balancer
from leadre.retrieval.balancer.counters import Dispatch
from leadre.retrieval.balancer.shared import Dispatched, SharedCounters
from leadre.serving.engine_server import EngineServer, State

BATCH, TOKENS = 8, 100
SETUP_S, WORK_S = 0.1, 0.1
FULL_S = SETUP_S + BATCH * WORK_S
SLO_S = 2.5 * FULL_S
NOWHERE = "redis://127.0.0.1:9"


def rate_of(speeds: Sequence[float]) -> float:
    """Return the requests a second of instances in full batches: their theoretical load."""
    return sum(BATCH / (SETUP_S + BATCH * WORK_S / speed) for speed in speeds)


def _index() -> AdIndex:
    ads = 64
    return AdIndex.assemble(
        version="bench",
        ad_ids=np.arange(ads),
        codes=np.stack(np.unravel_index(np.arange(ads), (4, 4, 4)), axis=1).astype(np.int32),
        first_categories=[""] * ads,
        second_categories=[""] * ads,
        advertiser_ids=np.zeros(ads, np.int64),
        embeddings=np.zeros((ads, 2), np.float32),
        code_counts=(4, 4, 4),
        quality={},
    )


class Sleeping:
    """An engine that sleeps for a batch's time and gives everyone the first ads."""

    index_version, score = "bench", "raw"

    def __init__(self, index: AdIndex, *, speed: float) -> None:
        self._index, self._speed = index, speed

    def over(self, index: AdIndex) -> Sleeping:
        """See `Engine.over`."""
        return Sleeping(index, speed=self._speed)

    def generate(self, prompts: Sequence[Sequence[int]], *, beam_width: int, filters: Any = None) -> list[list[Beam]]:  # noqa: ARG002
        """See `Engine.generate`."""
        time.sleep(SETUP_S + WORK_S * sum(map(len, prompts)) / TOKENS / self._speed)
        beams = beams_at(self._index, np.arange(beam_width), [-1.0 - leaf for leaf in range(beam_width)])
        return [beams for _ in prompts]


class _Host:
    def __init__(self, speed: float) -> None:
        self._batcher = MicroBatcher(
            Sleeping(_index(), speed=speed),  # type: ignore[arg-type]
            beam_width=1,
            tokens_per_batch=BATCH * TOKENS,
        )

    def batcher(self, asked: Asked) -> MicroBatcher:  # noqa: ARG002
        return self._batcher

    def state(self) -> State:
        waiting, running = self._batcher.load
        return State(release="bench", index_version="bench", revision=0, ads=64, waiting=waiting, running=running)

    def start(self) -> None:
        pass

    def close(self) -> None:
        self._batcher.close()


class InTurn(SharedCounters):
    """What the balancer is compared with: each proxy goes round from a place of its own; nothing is counted."""

    def __init__(self, random: Random) -> None:
        self.lease_ms, self._turn = 5000, random.randrange(1000)

    def acquire(self, instances: Sequence[str], *, work: int, now: int | None = None) -> Dispatched:  # noqa: ARG002
        """Choose the next one."""
        self._turn += 1
        dispatch = Dispatch(token=self._turn, instance=instances[self._turn % len(instances)], work=work)
        return Dispatched(dispatch=dispatch, work={})

    def renew(self, tokens: Sequence[int], *, now: int | None = None) -> int:  # noqa: ARG002
        """Nothing is leased."""
        return 0

    def release(self, token: int, *, outcome: str, now: int | None = None) -> bool:  # noqa: ARG002
        """Nothing is counted."""
        return True


def run_engine(speed: float, listening: int) -> None:
    """Serve until killed."""
    import uvicorn

    config = uvicorn.Config(EngineServer(_Host(speed)), log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listening)])


def run_proxy(urls: Sequence[str], redis_url: str, policy: str, rate: float, seconds: float, seed: int) -> None:
    """Send requests; print a line when one begins and when it ends, so that a killed proxy's are known to be lost."""
    random = Random(seed)
    counters = InTurn(random) if policy == "round_robin" else SharedCounters.connect(redis_url)
    balancer = Balancer(lambda: urls, counters, timeout_s=20, random=random)
    engine = RemoteEngine(balancer.ask, index=_index(), release="", vocabulary_size=99, score="raw")

    def ask(number: int, at: float) -> None:
        try:
            answered = len(engine.generate([[number % 90] * TOKENS], beam_width=4)[0]) == 4
        except LeadreError:
            answered = False
        _say({"number": number, "took": time.time() - at, "answered": answered})

    with ThreadPoolExecutor(200) as threads:
        for number in range(int(rate * seconds)):
            time.sleep(random.expovariate(rate))
            at = time.time()
            _say({"number": number, "at": at})
            threads.submit(ask, number, at)


def _say(row: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")  # at once: other threads write as well
    sys.stdout.flush()


@contextmanager
def engines(speeds: Sequence[float]) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[str]]]:
    """Start an engine server a speed; give the processes and their addresses."""
    processes, urls = [], []
    try:
        for speed in speeds:
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen(256)
                urls.append(f"http://127.0.0.1:{listening.getsockname()[1]}")
                command = [sys.executable, __file__, "engine", str(speed), str(listening.fileno())]
                processes.append(subprocess.Popen(command, pass_fds=[listening.fileno()]))
        yield processes, urls
    finally:
        for process in processes:
            process.kill()
            process.wait()


def proxies(
    count: int, urls: Sequence[str], *, redis_url: str, policy: str, rate: float, seconds: float, to: Path
) -> list[subprocess.Popen[bytes]]:
    """Start proxies that share a rate of requests; what they see goes to `to`/<number>.jsonl."""
    to.mkdir(parents=True, exist_ok=True)
    started = []
    for number in range(count):
        arguments = [",".join(urls), redis_url, policy, str(rate / count), str(seconds), str(number)]
        with (to / f"{number}.jsonl").open("wb") as file:
            started.append(subprocess.Popen([sys.executable, __file__, "proxy", *arguments], stdout=file))
    return started


def seen(folder: Path) -> list[tuple[float, float]]:
    """Return (when it was sent, how long it took) of every request, infinite where it was lost or refused."""
    found = []
    for file in folder.glob("*.jsonl"):
        begun: dict[int, float] = {}
        took: dict[int, float] = {}
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a killed proxy's last line
                continue
            if "at" in row:
                begun[row["number"]] = row["at"]
            elif row["answered"]:
                took[row["number"]] = row["took"]
        found += [(at, took.get(number, float("inf"))) for number, at in begun.items()]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "engine":
        run_engine(float(sys.argv[2]), int(sys.argv[3]))
    else:
        named, redis, how, a_second, length, which = sys.argv[2:]
        run_proxy(named.split(","), redis, how, float(a_second), float(length), int(which))
