"""Market prices: what clicks cost in a real auction, for data without bids. LEADRE §4.3.2 (eCPM); ours: simulated.

Two forms, both of the iPinYou contest: rows of (click, market price, predicted click rate), and a campaign's histogram
of market prices as JSON. A price per 1,000 impressions at a click rate is worth price / (1,000 x rate) per click.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.store.importers.tabular.values import shown

HIGHEST_BID = 1e6
"""As for bids of one's own (docs/data_format.md)."""
_HISTOGRAM, _IMPRESSIONS, _CLICKS = "price_counter_train", "imp_train", "clk_train"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketPrices:
    """What a click was worth, and how often.

    Args:
        bids: float64[n], above 0, ascending, in the file's currency units a click.
        counts: int64[n], how often each was paid, above 0.
    """

    bids: NDArray[np.float64]
    counts: NDArray[np.int64]

    def draw(self, ad_ids: Iterable[int], *, seed: int) -> NDArray[np.float64]:
        """Return a bid for each ad, as likely as it was paid. An ad's bid depends on its id and the seed alone."""
        ends = np.cumsum(self.counts)
        uniform: NDArray[np.float64] = np.array([_uniform(ad_id, seed) for ad_id in ad_ids], np.float64)
        drawn: NDArray[np.float64] = self.bids[np.searchsorted(ends, uniform * ends[-1], side="right")]
        return drawn


def read_market_prices(path: Path) -> MarketPrices:
    """Read a file of market prices: a histogram if it ends in .json, else rows. Prices of 0 say nothing of a bid.

    Args:
        path: a JSON object of `price_counter_train` (how often each whole price was paid, from 0 on), `imp_train` and
            `clk_train` (impressions and clicks, which give the click rate); or lines "click price rate", separated by
            white space: 0 or 1, a price per 1,000 impressions, a predicted click rate above 0.

    Raises:
        InvalidInput: no such file, or a value that cannot be; it names the row (or key) and the value.
    """
    if not path.is_file():
        raise InvalidInput("the file does not exist", source=str(path))
    content = path.read_text(encoding="utf-8", errors="replace")
    worth = _histogram(content, str(path)) if path.suffix == ".json" else _rows(content, str(path))
    counted: dict[float, int] = {}
    for bid, count in worth:
        if bid > 0 and count:
            counted[bid] = counted.get(bid, 0) + count
    if not counted:
        raise InvalidInput("holds no price above 0", source=str(path))
    bids = sorted(counted)
    return MarketPrices(bids=np.array(bids, np.float64), counts=np.array([counted[bid] for bid in bids], np.int64))


def _rows(content: str, source: str) -> Iterator[tuple[float, int]]:
    for row, line in enumerate(content.splitlines(), start=1):
        values = line.split()
        if len(values) != 3:
            problem = f"{shown(line)} has {len(values)} values; each line is: click, price, predicted click rate"
            raise InvalidInput(problem, source=source, row=row)
        click, price, rate = values
        if click not in {"0", "1"}:
            raise InvalidInput(f"{shown(click)} is not 0 or 1", source=source, row=row, column="click")
        worth = _number(price, source, row, "price", low=0.0, high=HIGHEST_BID) / 1000
        worth /= _number(rate, source, row, "predicted click rate", low=1e-9, high=1.0)
        if worth > HIGHEST_BID:
            problem = f"a price of {price} at a click rate of {rate} is {worth:g} a click, the most is {HIGHEST_BID:g}"
            raise InvalidInput(problem, source=source, row=row)
        yield worth, 1


def _number(value: str, source: str, row: int, column: str, *, low: float, high: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        problem = f"{shown(value)} is not a number from {low:g} to {high:,.0f}"
        raise InvalidInput(problem, source=source, row=row, column=column)
    return number


def _histogram(content: str, source: str) -> Iterator[tuple[float, int]]:
    try:
        found = json.loads(content)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"is not JSON: {error.msg}", source=source, row=error.lineno) from None
    if not isinstance(found, dict):
        raise InvalidInput(f"is not a JSON object with {_HISTOGRAM}, {_IMPRESSIONS} and {_CLICKS}", source=source)
    impressions, clicks = (_count(found.get(key), source, key, low=1) for key in (_IMPRESSIONS, _CLICKS))
    if clicks > impressions:
        problem = f"{clicks} clicks of {impressions} impressions cannot be"
        raise InvalidInput(problem, source=source, column=_CLICKS)
    counts = found.get(_HISTOGRAM)
    if not isinstance(counts, list) or len(counts) > HIGHEST_BID:
        raise InvalidInput(f"{shown(counts)} is not a list of counts by price", source=source, column=_HISTOGRAM)
    for price, count in enumerate(counts):
        times = _count(count, source, f"{_HISTOGRAM}[{price}]", low=0)
        yield price * impressions / (1000 * clicks), times


def _count(value: Any, source: str, key: str, *, low: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= 10**12:
        raise InvalidInput(f"{shown(value)} is not a whole number from {low} to 1e12", source=source, column=key)
    return value


def _uniform(ad_id: int, seed: int) -> float:
    """Return a number in [0, 1) by hash: 53 bits, as many as a float64 has."""
    return (int.from_bytes(hashlib.blake2b(f"{seed}|{ad_id}".encode(), digest_size=8).digest(), "big") >> 11) * 2.0**-53
