"""The training benchmark runs with tiny sizes, and its figures fit each other."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = (
    "index.levels=2", "index.codes=16", "prompt.budget_tokens=320", "model.hidden_size=16", "model.layers=1",
    "model.heads=2", "model.feed_forward=24", "model.text_vocabulary=400", "sft.batch_size=16",
    "sft.device_batch_size=8", "sft.precision=fp32",
)  # fmt: skip


def test_its_json_has_every_way_of_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("bench_training")
    threads = torch.get_num_threads()
    sizes = [part for size in SIZES for part in ("--set", size)]
    try:
        bench.main(["--quick", "--json", "--users", "40", "--ads", "50", "--peer-steps", "1", *sizes])
    finally:
        torch.set_num_threads(threads)
        for name in ("bench_training", "histories", "toy"):
            sys.modules.pop(name, None)

    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["speedup"] == pytest.approx(report["ours_targets_per_s"] / report["trl_one_prompt_targets_per_s"])
    for name in ("ours_tokens_per_s", "trl_tokens_per_s", "trl_one_pass_targets_per_s", "gemm_gflops"):
        assert report[name] > 0
    assert report["ours_gemm_fraction"] > 0
    assert min(report["samples_per_s"], report["plain_samples_per_s"], report["peak_rss_mb"]) > 0
    assert 0 < report["teacher_share"] < 1
    assert 0 <= report["ours_padding"] < report["trl_padding"] < 1
