"""What a simulation found, as plain figures. Everything in it is simulated, and says so. LEADRE §5.3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leadre.evaluation.bootstrap import Interval
from leadre.simulation.parameters import Parameters

PAPER = {"branch": (0.0117, 0.0157), "features": (0.0143,), "consumption_ratio": (0.0733,)}
"""Of real traffic (§5.3): GMV on Moments and Channels, GMV of the features, consumption on Channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow:
    """An arm's figures, means over worlds."""

    name: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """Lifts with one parameter changed, by what is lifted: "gmv", "expected_gmv", "revenue".

    Args:
        parameter, value: which, and to what.
        branch: LEADRE as a branch over none; with `llm_budget`, as a branch with ARD.
        other, other_is: a second lift, and what it is.
        consumption_ratio: share of impressions of ads that LEADRE alone retrieved.
    """

    parameter: str
    value: float
    branch: Mapping[str, Interval]
    other: Mapping[str, Interval]
    other_is: str
    consumption_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {
            "parameter": self.parameter,
            "value": self.value,
            "branch": {field: lift.to_json() for field, lift in self.branch.items()},
            "other": {field: lift.to_json() for field, lift in self.other.items()},
            "other_is": self.other_is,
            "consumption_ratio": self.consumption_ratio,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """All of it.

    Args:
        parameters: of the system.
        seeds, sweep_seeds: of the worlds.
        arms: their figures.
        lifts: pair of arms -> figure -> paired lift, with common random numbers.
        aa_randomised: of two groups of users who get the same system, with CUPED.
        ab_randomised: what a two-group experiment of this size with CUPED would report.
        sweep: lifts with one parameter changed.
    """

    parameters: Parameters
    seeds: tuple[int, ...]
    sweep_seeds: tuple[int, ...]
    arms: tuple[ArmRow, ...]
    lifts: Mapping[str, Mapping[str, Interval]]
    aa_randomised: Interval
    ab_randomised: Mapping[str, Interval]
    sweep: tuple[SweepRow, ...]

    def figures(self, arm: str) -> Mapping[str, float]:
        """Return the figures of the arm with this name."""
        return next(row.figures for row in self.arms if row.name == arm)

    def to_json(self) -> dict[str, Any]:
        """Return the plain form; relative lifts are shares, 0.01 is one per cent."""
        from leadre.simulation.arms import BRANCH, CONTROL, FEATURES

        branch = self.figures(BRANCH.name)
        return {
            "simulation": True,
            "worlds": len(self.seeds),
            "gmv_lift_branch": self.lifts["branch"]["gmv"].to_json(),
            "gmv_lift_features": self.lifts["features"]["gmv"].to_json(),
            "expected_gmv_lift_branch": self.lifts["branch"]["expected_gmv"].to_json(),
            "expected_gmv_lift_features": self.lifts["features"]["expected_gmv"].to_json(),
            "consumption_ratio": branch["consumption_ratio"],
            "aa_lift": self.aa_randomised.to_json(),
            "aa_lift_other_luck": self.lifts["aa"]["gmv"].to_json(),
            "diversity": {arm.name: self.figures(arm.name)["diversity"] for arm in (CONTROL, BRANCH, FEATURES)},
            "arms": {row.name: dict(row.figures) for row in self.arms},
            "lifts": {
                pair: {field: interval.to_json() for field, interval in of_pair.items()}
                for pair, of_pair in self.lifts.items()
            },
            "randomised": {name: interval.to_json() for name, interval in self.ab_randomised.items()},
            "sweep": [row.to_json() for row in self.sweep],
            "sweep_worlds": len(self.sweep_seeds),
            "paper": {name: list(values) for name, values in PAPER.items()},
            "parameters": self.parameters.to_json(),
            "seeds": list(self.seeds),
        }

    def write(self, folder: Path) -> Path:
        """Write it as `write_result` does."""
        return write_result(folder, self.to_json())


def write_result(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write what was found into the folder's `result.json`, whole or not at all, and return its path.

    What is in there and was not measured now stays: the section `real` has a run of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / "result.json", folder / ".result.json.new"
    before: Any = None
    with suppress(FileNotFoundError, ValueError):
        before = json.loads(path.read_text())
    kept = before if isinstance(before, dict) else {}
    unfinished.write_text(json.dumps({**kept, **found}, indent=1))
    return unfinished.replace(path)
