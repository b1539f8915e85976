"""Workers and beat say that they are there; `leadre doctor` hears it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from leadre.retrieval.presence import Present, present

pytestmark = pytest.mark.slow


def test_a_worker_and_a_beat_are_known_by_their_queues_and_a_worker_that_ends_is_not(
    system, start: Callable, tmp_path: Path
) -> None:
    with Redis.from_url(system.settings.redis_url) as redis:

        def until(reached: Callable[[list[Present]], bool]) -> list[Present]:
            end = time.monotonic() + 90
            while not reached(found := present(redis)):
                logs = [path.read_text()[-2000:] for path in sorted(tmp_path.glob("process-*.log"))]
                assert time.monotonic() < end, logs
                time.sleep(0.05)
            return found

        beat = start("workers.app", "beat", "-s", str(tmp_path / "schedule"))
        worker = start("workers.app", "worker", "--pool=threads", "-c", "1", "-Q", "maintenance,indexing")
        found = until(lambda there: len(there) == 2)
        assert {(each.kind, each.queues) for each in found} == {("beat", ()), ("worker", ("indexing", "maintenance"))}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
        until(lambda there: [each.kind for each in there] == ["beat"])
        beat.send_signal(signal.SIGTERM)
        beat.wait(timeout=60)
