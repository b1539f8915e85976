"""The killer: SIGKILL to workers, Redis and PostgreSQL at seeded instants; the servers are started again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from leadre import services
from tests.chaos.fleet import Fleet

Victim = Literal["worker", "redis", "postgres"]
EVERY_S: Mapping[Victim, float] = {"worker": 1.1, "redis": 11.0, "postgres": 27.0}
"""In ten minutes 545 kills of workers, 54 of Redis and 22 of PostgreSQL."""


def schedule(seed: int, seconds: float, every_s: Mapping[Victim, float] = EVERY_S) -> list[tuple[float, Victim]]:
    """Return who is killed when, in seconds from the start."""
    kills: list[tuple[float, Victim]] = []
    for victim, every in every_s.items():
        rng = random.Random(f"{seed} {victim}")
        at = every * rng.uniform(0.5, 1.0)
        while at < seconds:
            kills.append((at, victim))
            at += every * rng.uniform(0.5, 1.5)
    return sorted(kills)


class Killer:
    """A thread that kills.

    Args:
        home: of the embedded servers.
        fleets: whose processes are killed, one of each at a time.
        kills: as `schedule` gives them.
    """

    def __init__(self, home: Path, fleets: Sequence[Fleet], kills: Sequence[tuple[float, Victim]]) -> None:
        self._home, self._fleets, self._kills = home, fleets, kills
        self._thread = threading.Thread(target=self._kill)
        self.counts: Counter[Victim] = Counter()
        self.failure: BaseException | None = None

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Kill while the block runs; at its end wait for the last kill, with all processes up again."""
        self._thread.start()
        yield
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _kill(self) -> None:
        began = time.monotonic()
        try:
            for at, victim in self._kills:
                time.sleep(max(0.0, at - (time.monotonic() - began)))
                if victim == "worker":
                    for fleet in self._fleets:
                        fleet.kill_oldest()
                else:
                    kill_server(self._home, victim)
                self.counts[victim] += 1
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits
            self.failure = error


def kill_server(home: Path, victim: Victim) -> None:
    """Kill a server and start it again."""
    running = services.status(home)
    pid = running.redis_pid if victim == "redis" else running.postgres_pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        while pid in (services.status(home).redis_pid, services.status(home).postgres_pid):
            time.sleep(0.01)
    services.up(home, durable=False)
