"""The GPU benchmark runs, on the CPU with a tiny model; without a GPU it measures nothing unless asked to."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_decode_gpu.py"

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="what it does where no GPU is")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("bench_decode_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_decode_gpu", module)
    spec.loader.exec_module(module)
    return module


@without_gpu
def test_without_a_gpu_it_says_so_and_measures_nothing(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([]) == 0
    assert "no CUDA device" in capsys.readouterr().out

    assert bench.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"device": None, "matmul_tflops": None, "cells": []}


@without_gpu
def test_quick_has_every_figure_and_the_peers_beams(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--quick", "--json", "--ads", "800", "--cell", "1x4x9", "2x6x7"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["device"] is None
    assert report["matmul_tflops"] > 0
    assert [(cell["users"], cell["beams"], cell["prompt"]) for cell in report["cells"]] == [(1, 4, 9), (2, 6, 7)]
    for cell in report["cells"]:
        assert cell["same_beams"] == 1
        assert cell["max_abs_score_difference"] < 1e-4
        times = ("hf_dict_s", "hf_prefill_once_s", "raw_s", "level_s", "fp8_s", "floor_s", "matmul_fraction")
        assert min(cell[name] for name in times) > 0
        assert 0 < cell["fp8_same_ads"] <= 1
        assert cell["trie_share"] > 0  # measured apart from the search: above 1 on a busy machine


def test_floor_counts_the_models_multiply_adds(bench: ModuleType) -> None:
    made = object.__new__(bench.Bench)
    made._size = "qwen3-0.6b"

    row = 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072)  # a token through all layers
    assert made._multiply_adds(1, 1, 2000) > 2000 * row * 27 / 28
    assert made._multiply_adds(3, 5, 70) == 3 * made._multiply_adds(1, 5, 70)
