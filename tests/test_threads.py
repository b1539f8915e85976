"""Threads of one computation wait asleep: beside busy processes they burn no time of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from leadre.threads import SPINS, wait_asleep

ENTRIES = {
    "leadre": "import sys; sys.argv[1:] = ['-h']\nfrom leadre.cli import main\ntry: main()\nexcept SystemExit: pass",
    "celery": "import workers.app",
}
WORK = """
import os, subprocess, sys, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
if sys.argv[1] == "asleep":
    from leadre.threads import wait_asleep
    wait_asleep()
import torch
torch.set_num_threads(2)
a = torch.ones(160, 160)
busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    done, until, start = 0, time.monotonic() + 1, time.process_time()
    while time.monotonic() < until:
        a = (a @ a).clamp(0, 1)
        done += 1
    print((time.process_time() - start) / done)
finally:
    for process in busy:
        process.kill()
        process.wait()
"""


@pytest.fixture
def environment() -> dict[str, str]:
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in own}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_sets_it_before_torch_is_loaded(entry: str, environment: dict[str, str]) -> None:
    code = f"{ENTRIES[entry]}\nimport sys, torch"
    displayed = {
        **environment,
        "OMP_DISPLAY_ENV": "verbose",
        "LEADRE_REDIS_URL": "redis://h",
        "LEADRE_DATABASE_URL": "",
    }
    done = subprocess.run([sys.executable, "-c", code], env=displayed, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    wait_asleep()
    assert dict(os.environ) == before


def test_beside_busy_processes_waiting_burns_no_time(environment: dict[str, str]) -> None:
    """Counted in CPU seconds of the computation itself, which other programs do not enter."""

    def step_cpu_s(how: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", WORK, how], env=environment, capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    # A fifth, mostly; where all processors are taken by others too, threads hardly get to spin.
    assert any(step_cpu_s("asleep") < step_cpu_s("spinning") / 1.5 for _ in range(5))
