"""The guard of a promotion: what a candidate must reach to replace the live release. Ours; LEADRE names none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from leadre.errors import ConfigError

HIT_RATIO_DROP = 0.05
"""Of the hit ratio at the largest cutoff (this share and the next are ours)."""
LIST_DROP = 0.1
"""Of the mean eCPM and of the diversity of the lists' first ads: they vary more from day to day."""


def guard_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return what every promotion is guarded by, for a release that was evaluated: see `shortfalls`.

    Args:
        metrics: the release's, as the evaluation gives them; they name the cutoffs.
    """
    cutoff = max(metrics.get("cutoffs", ()), default=0)
    return {
        f"metrics.leadre.canonical.HR@{cutoff}.mean": HIT_RATIO_DROP,
        "lists.leadre.mean_ecpm": LIST_DROP,
        "lists.leadre.diversity": LIST_DROP,
    }


def shortfalls(candidate: Mapping[str, Any], live: Mapping[str, Any], guard: Mapping[str, float]) -> list[str]:
    """Compare the metrics of two releases; larger is better.

    Args:
        candidate: metrics of the new release; may be nested.
        live: those of the live one.
        guard: metric → share of the live value that the candidate may fall short by; a dot goes into a nested metric.

    Returns:
        A sentence for every metric that is missing on either side, is no number, or fell further.

    Raises:
        ConfigError: an allowed drop outside [0, 1).
    """
    problems = []
    for metric, drop in guard.items():
        if not 0 <= drop < 1:
            raise ConfigError(f"guard {metric}={drop}: the allowed drop is a share in [0, 1)")
        ours, theirs = figure(candidate, metric), figure(live, metric)
        bound = theirs - drop * abs(theirs)
        if not ours >= bound:  # so that a figure that is missing, not a number, is refused as well
            problems.append(f"{metric} is {ours:.6g}, live has {theirs:.6g} and at least {bound:.6g} is asked for")
    return problems


def figure(metrics: Mapping[str, Any], metric: str) -> float:
    """Return a figure of a release by its path; not a number where there is none."""
    value: Any = metrics
    for key in metric.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else math.nan
