"""The catalog as blocks: whole, in order, and sampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.domain.ads import Ad
from leadre.indexing.texts.description import describe
from leadre.pipelines.index import blocks
from leadre.synthetic import make_world

ADS = make_world(seed=1, ads=96, users=3, sessions=2, slate=2).ads[:11]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    def in_fours(_connection: object, *, size: int) -> list[tuple[Ad, ...]]:
        return [ADS[start : start + size] for start in range(0, len(ADS), size)]

    monkeypatch.setattr(blocks, "ad_blocks", in_fours)
    assert list(blocks.write_catalog(None, tmp_path, size=4)) == list(ADS)  # type: ignore[arg-type]
    return blocks.blocks_in(tmp_path)


def test_what_workers_wrote_comes_back_in_the_order_of_the_ads(catalog: list[Path]) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 9, size=(11, 3)).astype(np.int32)
    quantised, hidden = (rng.normal(size=(11, 5)).astype(np.float32) for _ in range(2))
    for block, start in reversed(list(zip(catalog, (0, 4, 8), strict=True))):
        part = slice(start, start + 4)
        blocks.write_codes(block, codes=codes[part], quantised=quantised[part], hidden=hidden[part])
    found = blocks.read_assigned(catalog)
    assert np.array_equal(found["codes"], codes)
    assert np.array_equal(found["quantised"], quantised)
    assert np.array_equal(found["hidden"], hidden)
    assert found["ad_ids"].tolist() == [ad.ad_id for ad in ADS]
    assert found["second_categories"] == [ad.second_category for ad in ADS]
    assert blocks.blocks_in(catalog[0].parent) == catalog


def test_a_sample_keeps_the_order_and_skips_blocks_that_it_does_not_touch(catalog: list[Path]) -> None:
    sample = blocks.select(catalog, np.array([1, 3, 8, 10]))
    assert [blocks.count([block]) for block in sample] == [2, 2]
    texts = [text for block in sample for text in blocks.descriptions(block)]
    assert texts == [describe(ADS[row]) for row in (1, 3, 8, 10)]
