"""The trie's benchmark runs and names its figures as documented."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_its_json_has_every_figure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    bench = importlib.import_module("bench_trie")
    for name, value in {"DICT_ADS": 500, "PROMPT": 12, "DECODE_BEAMS": 5, "ROUNDS": 1}.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(sys, "argv", ["bench_trie.py", "--ads", "3000", "--json"])
    threads = torch.get_num_threads()
    try:
        bench.main()
    finally:
        torch.set_num_threads(threads)
        for name in ("bench_trie", "bench_decode"):
            sys.modules.pop(name, None)

    report = json.loads(capsys.readouterr().out)
    assert report["ads"] == 3000
    assert report["added_ads"] == 30
    assert report["filter_bits_per_ad"] <= 2
    assert report["floor_bytes_per_ad"] < report["bytes_per_ad"] <= 9
    for name in ("children_ms", "filtered_children_ms", "sorted_keys_children_ms", "dict_children_ms"):
        assert len(report[name]) == 5
    seconds = ("sort_s", "build_s", "load_ms", "dict_build_s", "filter_build_ms", "add_1pct_s", "publish_s")
    for name in (*seconds, "dict_bytes_per_ad", "filtered_decode_ratio"):
        assert report[name] >= 0
