"""The profile of the device engine runs, on the CPU with a tiny model; without a GPU it profiles nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "profile_decode_gpu.py"

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="what it does where no GPU is")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("profile_decode_gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "profile_decode_gpu", module)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_profiles_nothing(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"device": None, "cells": []}


def test_quick_names_every_part_of_a_pass_and_float32_beams_are_transformers_own(
    script: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--quick", "--json", "--ads", "800", "--cell", "1x4x9"]) == 0

    (cell,) = json.loads(capfd.readouterr().out.splitlines()[-1])["cells"]
    assert cell["pass_ms"] > 0
    assert cell["read_ms"] > 0
    assert {"product", "elementwise and copies"} <= set(cell["kinds_ms"])
    assert {(product["product"], product["part"]) for product in cell["products"]} >= {
        ("mlp.down_proj", "prompt"),
        ("self_attn.q_proj", "beams"),
    }
    assert cell["ties"]["same_set"] == cell["ties"]["transformers_same_place"] == 1
