"""The Triton kernels: in Triton's interpreter and compiled for a GPU, which needs none, and on a GPU where one is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


def run(cases: str, environment: dict[str, str]) -> None:
    pytest.importorskip("triton")
    # A process of its own: Triton must be told how to run before it is first imported.
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(cases))],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRITON_DEFAULT_FP_FUSION": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


def test_every_kernel_equals_its_formula_in_the_interpreter() -> None:
    run("triton_cases.py", {"TRITON_INTERPRET": "1"})


def test_every_kernel_compiles_for_hopper(tmp_path: Path) -> None:
    run("triton_compile_cases.py", {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_kernel_equals_its_formula_on_the_gpu() -> None:
    run("triton_cases.py", {"TRITON_INTERPRET": "0"})
