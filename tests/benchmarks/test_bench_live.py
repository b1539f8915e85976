"""The load on the batcher: everybody is answered, and the figures are of what was asked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leadre.decoding.stub import StubEngine
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask, Trie
from leadre.pipelines.decode import Prepared

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_live.py"
spec = importlib.util.spec_from_file_location("bench_live", SCRIPT)
assert spec is not None
assert spec.loader is not None
bench_live = sys.modules["bench_live"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_live)
Load, measure = bench_live.Load, bench_live.measure


@pytest.fixture
def prepared() -> Prepared:
    codes = np.stack(np.unravel_index(np.arange(30), (5, 6)), axis=1).astype(np.int32)
    index = AdIndex(
        version="tiny",
        ad_ids=np.arange(30),
        codes=codes,
        first_categories=np.zeros(30, np.int32),
        second_categories=np.zeros(30, np.int32),
        category_names=("all",),
        advertiser_ids=np.zeros(30, np.int64),
        embeddings=np.zeros((30, 3), np.float32),
        trie=Trie.build(codes),
        code_counts=(5, 6),
        quality={},
    )
    return Prepared(
        release="r1",
        engine=StubEngine(index, vocabulary_size=9),
        users=(3, 1, 4),
        prompts=((1,) * 10, (2,) * 30, (3,) * 20),
        masks=(None, LiveMask.of(np.arange(30) < 4), None),
    )


def test_decoding_prepared_users_obeys_their_filters(prepared: Prepared) -> None:
    assert [len(beams) for beams in prepared.decode(beam_width=7)] == [7, 4, 7]


@pytest.mark.parametrize("load", [Load(clients=5, seconds=0.05), Load(per_s=400, seconds=0.05)])
def test_every_way_answers_users_and_says_what_it_fed(prepared: Prepared, load: Any) -> None:
    ways = measure(prepared, beam_width=7, load=load)

    assert list(ways) == ["one_by_one", "batcher", "one_batch"]
    for way in ways.values():
        assert way.users > 0
        assert way.refused == 0
        assert 0 < way.p50_ms <= way.p95_ms <= way.p99_ms
    assert (ways["one_by_one"].mean_batch, ways["one_by_one"].padding) == (1.0, 0.0)
    assert ways["one_batch"].mean_batch == 3.0
    assert ways["one_batch"].padding == pytest.approx(1 - 60 / 90)
    assert ways["batcher"].padding <= 0.25


def test_the_same_seed_brings_the_same_number_of_requests(prepared: Prepared) -> None:
    load = Load(per_s=300, seconds=0.1, seed=5)
    counts = {measure(prepared, beam_width=2, load=load)["batcher"].users for _ in range(2)}
    assert len(counts) == 1


def test_an_open_loop_that_no_request_falls_into_measures_nothing(prepared: Prepared) -> None:
    assert measure(prepared, beam_width=2, load=Load(per_s=1e-6, seconds=0.01))["batcher"].users == 0
