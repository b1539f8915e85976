"""The machine: Python, cores, memory, disk, GPU. Bounds are ours: what the demo needs, and what a training likes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from leadre.pipelines.doctor.finding import Finding, fault, ok, warning

OLDEST_PYTHON = (3, 11)
GIB = 1 << 30
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 4 * GIB, 1 * GIB
LITTLE_DISK, TOO_LITTLE_DISK = 10 * GIB, 1 * GIB
_DRIVER = Path("/proc/driver/nvidia/version")


def python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """Look at Python's version."""
    said = "Python " + ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return fault("python", f"{said}; 3.11 is the oldest that works", run="python3.11 -m venv .venv")
    return ok("python", said)


def cores(count: int | None = None) -> Finding:
    """Look at the cores that this process may use."""
    count = len(os.sched_getaffinity(0)) if count is None else count
    if count < 2:
        return warning("cores", "1 core: a training and a server hold each other up")
    return ok("cores", f"{count} cores")


def memory(meminfo: str | None = None) -> Finding:
    """Look at the memory that is free.

    Args:
        meminfo: what /proc/meminfo says; None reads it.
    """
    try:
        text = Path("/proc/meminfo").read_text() if meminfo is None else meminfo
    except OSError:
        return warning("memory", "memory unknown: there is no /proc/meminfo")
    kib = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in text.splitlines()) if value
    }
    free, whole = kib.get("MemAvailable", 0) * 1024, kib.get("MemTotal", 0) * 1024
    said = f"{free / GIB:.1f} of {whole / GIB:.1f} GiB of memory free"
    if free < TOO_LITTLE_MEMORY:
        return fault("memory", f"{said}; Feast and torch alone take 1 GiB: end what holds it")
    if free < LITTLE_MEMORY:
        return warning("memory", f"{said}; a training wants 4 GiB: lower sft.device_batch_size")
    return ok("memory", said)


def disk(home: Path, *, free: int | None = None) -> Finding:
    """Look whether LEADRE_HOME can be written, and at what is free there.

    Args:
        home: LEADRE_HOME; it may be missing.
        free: bytes; None asks the file system.
    """
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        said = f"{there} cannot be written, and LEADRE_HOME={home} lies there"
        return fault("disk", said, run="export LEADRE_HOME=$HOME/.leadre")
    free = shutil.disk_usage(there).free if free is None else free
    said = f"{free / GIB:,.0f} GiB free at {home}"
    if free < TOO_LITTLE_DISK:
        run = "leadre retention --days 180"
        return fault("disk", f"{said}; PostgreSQL stops writing when it is full", run=run)
    if free < LITTLE_DISK:
        return warning("disk", f"{said}; an LLM with its checkpoints takes 10 GiB")
    return ok("disk", said)


def gpu(device: str, *, driver: Path = _DRIVER) -> Finding:
    """Look whether the device of the settings is there. torch is imported only where a GPU is asked for.

    Args:
        device: LEADRE_DEVICE.
        driver: the file that NVIDIA's driver makes.
    """
    if device == "cpu":
        if driver.exists():
            said = "there is a GPU, and LEADRE_DEVICE=cpu leaves it alone"
            return warning("gpu", said, run="export LEADRE_DEVICE=cuda")
        return ok("gpu", "no GPU, none asked for (LEADRE_DEVICE=cpu)")
    try:
        import torch

        found = torch.device(device).type != "cuda" or torch.cuda.is_available()
        said = (
            f"LEADRE_DEVICE={device}" if found else f"LEADRE_DEVICE={device}, but torch {torch.__version__} sees no GPU"
        )
    except ModuleNotFoundError:
        found, said = False, f"LEADRE_DEVICE={device}, but torch is not installed"
    except RuntimeError:
        found, said = False, f"LEADRE_DEVICE={device} is no device of torch"
    if found:
        return ok("gpu", said)
    return fault("gpu", said, run="export LEADRE_DEVICE=cpu")
