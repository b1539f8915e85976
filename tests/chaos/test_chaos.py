"""A short run of the chaos harness; longer ones: `python -m tests.chaos --minutes 10`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from tests.chaos.killer import schedule
from tests.chaos.world import ROOT

pytestmark = pytest.mark.slow


def chaos(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    found: dict[str, Any] = msgspec.json.decode(done.stdout.splitlines()[-1])
    return found


def test_kills_of_workers_redis_and_postgresql_lose_nothing_and_set_nobody_back() -> None:
    found = chaos("--seconds", "8", "--seed", "3", "--workers", "2", "--users", "60", "--no-celery")
    never = ("lost", "backward", "stale", "reads_not_200", "empty_unmarked", "workers_ended")
    assert {name: found[name] for name in never} == dict.fromkeys(never, 0)
    assert found["accepted"] > 0
    assert found["worker_kills"] > 0
    assert found["redis_kills"] > 0


def test_a_wiped_redis_has_all_lists_again_and_no_old_one_is_read_meanwhile() -> None:
    found = chaos("--scenario", "wipe", "--users", "4000", "--workers", "1")
    assert (found["back"], found["missing"], found["wrong"]) == (4000, 0, 0)
    assert found["reads"] > 0


def test_ten_minutes_are_five_hundred_kills_of_workers_fifty_of_redis_and_twenty_of_postgresql() -> None:
    for seed in range(5):
        kills = [victim for _, victim in schedule(seed, 600)]
        assert kills.count("worker") >= 500
        assert kills.count("redis") >= 50
        assert kills.count("postgres") >= 20
    assert schedule(1, 60) == schedule(1, 60)
    assert schedule(1, 60) != schedule(2, 60)
