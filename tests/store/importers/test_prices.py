"""Files of market prices: what a click is worth, how bids are drawn, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.store.importers.prices import MarketPrices, read_market_prices

HISTOGRAM = {"price_counter_train": [9, 0, 3, 1], "imp_train": 400, "clk_train": 2, "field": 60}
ROWS = "0 70 0.002\n1 6 0.003\n0 70 0.002\n0 0 0.5\n"


def write(folder: Path, content: object) -> Path:
    if isinstance(content, str):
        path = folder / "prices.txt"
        path.write_text(content)
    else:
        path = folder / "prices.json"
        path.write_text(json.dumps(content))
    return path


def test_a_price_at_a_click_rate_is_worth_so_much_a_click(tmp_path: Path) -> None:
    prices = read_market_prices(write(tmp_path, ROWS))
    assert prices.bids.tolist() == pytest.approx([2.0, 35.0])  # 6 / (1000 x .003), 70 / (1000 x .002)
    assert prices.counts.tolist() == [1, 2]


def test_a_histogram_takes_the_campaigns_click_rate_and_leaves_out_what_cost_nothing(tmp_path: Path) -> None:
    prices = read_market_prices(write(tmp_path, HISTOGRAM))
    assert prices.bids.tolist() == pytest.approx([0.4, 0.6])  # 2 and 3 / (1000 x 2/400)
    assert prices.counts.tolist() == [3, 1]


def test_bids_are_as_frequent_as_they_were_paid() -> None:
    prices = MarketPrices(bids=np.array([0.5, 2.0, 7.0]), counts=np.array([70, 25, 5]))
    drawn = prices.draw(range(20_000), seed=3)
    shares = [float((drawn == bid).mean()) for bid in prices.bids]
    assert shares == pytest.approx([0.7, 0.25, 0.05], abs=0.01)


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e3), st.integers(1, 10**9)), min_size=1, max_size=9, unique_by=lambda p: p[0]),
    st.sets(st.integers(0, 2**62), max_size=20),
    st.integers(0, 5),
)
def test_a_bid_depends_on_the_ad_and_the_seed_alone(paid: list[tuple[float, int]], ad_ids: set[int], seed: int) -> None:
    bids, counts = zip(*sorted(paid), strict=True)
    prices = MarketPrices(bids=np.array(bids), counts=np.array(counts))
    together = prices.draw(sorted(ad_ids), seed=seed)
    assert set(together.tolist()) <= set(bids)
    alone = [float(prices.draw([ad_id], seed=seed)[0]) for ad_id in sorted(ad_ids)]
    assert together.tolist() == alone


def test_another_seed_draws_other_bids() -> None:
    prices = MarketPrices(bids=np.arange(1.0, 50.0), counts=np.ones(49, np.int64))
    assert not np.array_equal(prices.draw(range(30), seed=0), prices.draw(range(30), seed=1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("0 70 0.002\n0 70\n", r"prices\.txt, row 2: '0 70' has 2 values"),
        ("0 70 0.002\n\n", "row 2: '' has 0 values"),
        ("2 70 0.002\n", "row 1, column 'click': '2' is not 0 or 1"),
        ("0 seventy 0.002\n", "column 'price': 'seventy' is not a number from 0"),
        ("0 -1 0.002\n", "'-1' is not a number"),
        ("0 nan 0.002\n", "'nan' is not a number"),
        ("0 70 0\n", "column 'predicted click rate': '0' is not a number"),
        ("0 70 1.5\n", r"'1\.5' is not a number"),
        ("0 70000 0.00000001\n", "row 1: a price of 70000 at a click rate of .* the most is 1e"),
        ("0 0 0.1\n", "no price above 0"),
        ("", "no price above 0"),
        ([1, 2], "is not a JSON object"),
        (HISTOGRAM | {"clk_train": 0}, "column 'clk_train': 0 is not a whole number from 1"),
        (HISTOGRAM | {"clk_train": 401}, "401 clicks of 400 impressions"),
        (HISTOGRAM | {"imp_train": "many"}, "column 'imp_train': 'many'"),
        (HISTOGRAM | {"price_counter_train": [1, -4]}, r"'price_counter_train\[1\]': -4 is not a whole number"),
        (HISTOGRAM | {"price_counter_train": {"1": 4}}, "is not a list of counts"),
    ],
)
def test_a_malformed_file_is_refused_with_place_and_value(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_market_prices(write(tmp_path, content))


def test_broken_json_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{\n"imp_train": 4,,\n}')
    with pytest.raises(InvalidInput, match=r"broken\.json, row 2: is not JSON"):
        read_market_prices(tmp_path / "broken.json")
    with pytest.raises(InvalidInput, match="does not exist"):
        read_market_prices(tmp_path / "none.txt")
