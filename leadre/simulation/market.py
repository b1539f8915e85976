"""The auction: candidates of ours against a competing price, slot by slot, second price. Ours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.store.importers.prices import MarketPrices

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def run_auctions(ecpm: Floats, market: Floats) -> tuple[Ints, Floats]:
    """Sell the slots of n visits, one after the other: the best candidate left wins if it is above the market's price.

    The winner pays the second price: the market's, or the next candidate's eCPM where that is higher. A slot that the
    market wins leaves our candidates as they are.

    Args:
        ecpm: float64[n, k], what our ranker expects of candidates per 1,000 impressions; -inf where there is none.
        market: float64[n, slots], competing prices per 1,000 impressions.

    Returns:
        The winning candidate of each slot, int64[n, slots], -1 where the market won; what is paid for one impression,
        float64[n, slots], 0 there.
    """
    order = np.argsort(-ecpm, axis=1, kind="stable")
    ranked = np.take_along_axis(ecpm, order, axis=1)
    beyond = market.shape[1] + 1
    ranked = np.hstack([ranked, np.full((len(ecpm), beyond), -np.inf)])
    order = np.hstack([order, np.full((len(ecpm), beyond), -1)])
    rows, place = np.arange(len(ecpm)), np.zeros(len(ecpm), np.int64)
    winners = np.full(market.shape, -1, np.int64)
    paid = np.zeros(market.shape)
    for slot in range(market.shape[1]):
        won = ranked[rows, place] > market[:, slot]
        winners[won, slot] = order[rows, place][won]
        second = np.maximum(market[:, slot], ranked[rows, place + 1])
        paid[won, slot] = second[won] / 1000
        place += won
    return winners, paid


def log_spread(prices: MarketPrices) -> float:
    """Return the standard deviation of the logarithm of prices: the one figure of a market that a simulation takes."""
    logs, weights = np.log(prices.bids), prices.counts / prices.counts.sum()
    mean = float(weights @ logs)
    return float(np.sqrt(weights @ (logs - mean) ** 2))
