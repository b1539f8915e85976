"""The machine: too old, too small, too full, without the GPU that is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leadre.pipelines.doctor import machine
from leadre.pipelines.doctor.machine import GIB


def meminfo(free_gib: float) -> str:
    return (
        f"MemTotal:  33554432 kB\nMemFree:  1 kB\nMemAvailable:  {int(free_gib * GIB / 1024)} kB\nHugePages_Total:  0\n"
    )


def test_this_python_is_new_enough_and_an_older_one_is_a_fault() -> None:
    assert machine.python().state == "ok"
    found = machine.python((3, 10, 14))
    assert found.state == "fault"
    assert "3.10.14" in found.said
    assert found.run == "python3.11 -m venv .venv"


def test_one_core_is_a_warning() -> None:
    assert machine.cores(1).state == "warning"
    assert machine.cores(2).said == "2 cores"
    assert machine.cores().said.startswith(str(len(os.sched_getaffinity(0))))


@pytest.mark.parametrize(("free", "state"), [(0.5, "fault"), (2, "warning"), (8, "ok")])
def test_little_memory_is_said(free: float, state: str) -> None:
    found = machine.memory(meminfo(free))
    assert found.state == state
    assert f"{free:.1f} of 32.0 GiB" in found.said


def test_the_memory_of_this_machine_can_be_read() -> None:
    assert " GiB of memory free" in machine.memory().said


@pytest.mark.parametrize(("free", "state"), [(GIB // 2, "fault"), (5 * GIB, "warning"), (50 * GIB, "ok")])
def test_a_full_disk_is_said_also_of_a_folder_that_is_yet_to_be_made(tmp_path: Path, free: int, state: str) -> None:
    assert machine.disk(tmp_path / "not" / "there", free=free).state == state


def test_a_home_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = machine.disk(tmp_path / "file" / "home")
    assert found.state == "fault"
    assert "cannot be written" in found.said
    assert "LEADRE_HOME" in found.run


def test_a_gpu_that_torch_does_not_see_is_a_fault_and_one_that_is_left_alone_a_warning(tmp_path: Path) -> None:
    driver = tmp_path / "version"
    assert machine.gpu("cpu", driver=driver).state == "ok"
    driver.write_text("NVRM version: 570")
    left_alone = machine.gpu("cpu", driver=driver)
    assert (left_alone.state, left_alone.run) == ("warning", "export LEADRE_DEVICE=cuda")
    misnamed = machine.gpu("cudda")
    assert (misnamed.state, misnamed.run) == ("fault", "export LEADRE_DEVICE=cpu")


def test_without_a_gpu_one_that_is_asked_for_is_a_fault() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    assert "sees no GPU" in machine.gpu("cuda").said
    assert machine.gpu("cuda").state == "fault"
