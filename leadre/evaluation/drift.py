"""How far a feature's values have moved: the population stability index of values against a reference.

For the features of LEADRE §4.4.1 and §5.3; the paper has no part in it. With shares p_k and q_k of the values in bin k,
PSI = Σ (p_k - q_k) ln(p_k / q_k). Siddiqi (Credit Risk Scorecards, 2006): below .1 nothing changed, above .25 much did.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Bins of a reference, by its quantiles (ours; ten is usual)."""
SOME_DRIFT, MUCH_DRIFT = 0.1, 0.25
"""Siddiqi's thresholds: to look at, and to act on."""
LEAST_SHARE = 1e-4
"""An empty bin counts as this share (ours): its logarithm would be infinite."""


def quantile_edges(reference: NDArray[Any], *, bins: int = BINS) -> NDArray[np.float64]:
    """Return the edges of bins that hold about equally many reference values: falling together where values repeat.

    Args:
        reference: n numbers; those that are not finite do not count.
        bins: at least 2.

    Returns:
        Rising different edges e_1 … e_k, at most `bins`; the bins are x < e_1, e_1 <= x < e_2, …, e_k <= x. A value
        that fills bins alone (a neutral 0, a constant) has one of its own. No finite reference value: no edges.
    """
    values = _finite(reference)
    if not len(values):
        return np.empty(0)
    inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    different, times = np.unique(inner, return_counts=True)
    # A value that is several quantiles at once: whatever is above it is another bin, however near.
    with np.errstate(over="ignore"):  # above the largest number is infinity, an edge like any other
        above = np.nextafter(different[(times > 1) | (len(different) == 1)], np.inf)
    return np.unique(np.concatenate((different, above)))


def bin_shares(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the finite values in each bin, float64[len(edges) + 1]; zeros when there are none."""
    finite = _finite(values)
    counts = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
    return counts / max(len(finite), 1)


def stability_index(reference: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    """Return the PSI of two equally long arrays of shares: 0 when they are equal, symmetric, never negative."""
    p, q = np.maximum(reference, LEAST_SHARE), np.maximum(shares, LEAST_SHARE)
    return float(((p - q) * (np.log(p) - np.log(q))).sum())


def drift(reference: NDArray[Any], values: NDArray[Any], *, bins: int = BINS) -> float:
    """Return the PSI of `values` in the quantile bins of `reference`; NaN when either has no finite value.

    Expect about (bins - 1) (1/n + 1/m) from chance alone when n and m values come from one distribution.
    """
    if not len(_finite(reference)) or not len(_finite(values)):
        return float("nan")
    edges = quantile_edges(reference, bins=bins)
    return stability_index(bin_shares(reference, edges), bin_shares(values, edges))


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    return numbers[np.isfinite(numbers)]
