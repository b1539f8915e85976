"""What a sweep over codebook sizes found, in the form of Table 5, beside the paper's figures and statements.

LEADRE §5.2.5, Table 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import msgspec

QuantiserName = Literal["rqvae", "residual_kmeans", "product"]
Assignment = Literal["nearest", "balanced"]
QUANTISERS: tuple[QuantiserName, ...] = get_args(QuantiserName)
ASSIGNMENTS: tuple[Assignment, ...] = get_args(Assignment)

PAPER: Mapping[tuple[int, int], tuple[float, int, float]] = {
    (3, 1024): (0.0479, 44, 1.0),
    (3, 512): (0.0795, 46, 1.0),
    (3, 256): (0.1638, 67, 1.0),
    (4, 1024): (0.0174, 25, 1.0),
    (4, 256): (0.0334, 25, 1.0),
}
"""Table 5 as printed: (M, K) to collision rate, max collision number, average usage rate."""
FULL_USAGE = 0.995
"""Usage that the paper's table would print as 1.0 or 0.99: no collapse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One combination.

    Args:
        quantiser: how the codebooks were fitted.
        levels: M.
        codes: K.
        assignment: how the codes were assigned.
        quality: see `leadre.indexing.quality.index_quality`; empty where the combination cannot be fitted.
        reason: why it cannot; empty where it can.
        fit_s: wall clock of the fit, in seconds.
    """

    quantiser: QuantiserName
    levels: int
    codes: int
    assignment: Assignment
    quality: Mapping[str, Any]
    reason: str = ""
    fit_s: float = 0.0

    @property
    def label(self) -> str:
        """The quantiser, and the assignment where it is not the paper's."""
        return self.quantiser if self.assignment == "nearest" else f"{self.quantiser}, {self.assignment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One of the paper's statements about Table 5, and whether it holds for the rows of one label."""

    label: str
    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a sweep found.

    Args:
        ads: how many.
        encoder: of their descriptions.
        identical: share of ads whose description another ad has too: codebooks tell them apart by rounding alone,
            so this is about the lowest collision rate that nearest codes can have.
        category_bits: entropy of the ads' first-level categories, the most that a code can say about them.
        rows: by quantiser and assignment, then M ascending and K descending, as in Table 5.
    """

    ads: int
    encoder: str
    identical: float
    category_bits: float
    rows: tuple[SweepRow, ...]

    @property
    def measured(self) -> dict[str, list[SweepRow]]:
        """The rows that could be fitted, by label."""
        found: dict[str, list[SweepRow]] = {}
        for row in self.rows:
            if row.quality:
                found.setdefault(row.label, []).append(row)
        return found

    def trends(self) -> list[Trend]:
        """Check the direction of each of the paper's trends on every quantiser's rows."""
        return [trend for label, rows in self.measured.items() for trend in _trends(label, rows)]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, the trends and the paper's figures included."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for row in plain["rows"]:
            names = ("collision_rate", "max_collision", "average_usage")
            printed = PAPER.get((row["levels"], row["codes"]))
            row["paper"] = dict(zip(names, printed, strict=True)) if printed else None
        return {**plain, "trends": msgspec.to_builtins(self.trends())}


def _trends(label: str, rows: Sequence[SweepRow]) -> list[Trend]:
    rates = {(row.levels, row.codes): float(row.quality["collision_rate"]) for row in rows}
    found = []
    for claim, chains in (
        ("more codes, fewer collisions", _chains(rates, along=1)),
        ("more levels, fewer collisions", _chains(rates, along=0)),
    ):
        if chains:
            found.append(
                Trend(
                    label=label,
                    claim=claim,
                    holds=all(_falls([rates[size] for size in chain]) for chain in chains),
                    evidence="; ".join(", ".join(f"{m} x {k}: {rates[m, k]:.2%}" for m, k in chain) for chain in chains)
                    if any(rates.values())
                    else "there are none at any size",
                )
            )
    least = min(rows, key=lambda row: float(row.quality["average_usage"]))
    usage = float(least.quality["average_usage"])
    found.append(
        Trend(
            label=label,
            claim="every code is used",
            holds=usage >= FULL_USAGE,
            evidence=f"the lowest average usage is {usage:.3f}, at {least.levels} x {least.codes}",
        )
    )
    return found


def _chains(sizes: Mapping[tuple[int, int], float], *, along: Literal[0, 1]) -> list[list[tuple[int, int]]]:
    """Return the sizes that differ in M alone (`along` 0) or in K alone (1), ascending, where there are two or more."""
    chains: dict[int, list[tuple[int, int]]] = {}
    for size in sorted(sizes):
        chains.setdefault(size[1 - along], []).append(size)
    return [chain for chain in chains.values() if len(chain) > 1]


def _falls(rates: Sequence[float]) -> bool:
    """Say whether each rate is below the one before; once there are no collisions there cannot be fewer."""
    return all(after < before or after == before == 0 for before, after in pairwise(rates))
