"""The benchmark runs, and its own comparison with transformers' constrained beam search holds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_decode.py"


def test_its_json_has_every_cell_and_the_peers_beams(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("bench_decode", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_decode", bench)
    spec.loader.exec_module(bench)
    threads = torch.get_num_threads()
    try:
        bench.main(["--json", "--ads", "3000", "--repeat", "1", "--cell", "1x4x20", "--cell", "3x7x16"])
    finally:
        torch.set_num_threads(threads)

    report = json.loads(capsys.readouterr().out)
    assert report["gemm_gflops"] > 0
    assert [(cell["users"], cell["beams"], cell["prompt"]) for cell in report["cells"]] == [(1, 4, 20), (3, 7, 16)]
    for cell in report["cells"]:
        assert cell["same_beams"] == 1
        assert cell["max_abs_score_difference"] < 1e-4
        assert min(cell[name] for name in ("hf_dict_s", "hf_prefill_once_s", "raw_s", "level_s", "floor_s")) > 0
        assert 0 < cell["trie_share"] < 1
