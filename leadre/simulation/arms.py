"""The arms of the experiment, and what each measures. LEADRE §5.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.diversity import diversity
from leadre.simulation.nearline import Policy

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way of running the system.

    Args:
        name: in tables.
        leadre: whether LEADRE is a branch.
        features: whether its features are in the ranker.
        dpo: whether the release is the one after DPO.
        policy: who is refreshed.
        luck: of clicks, conversions and competing prices; arms of the same luck have common random numbers.
    """

    name: str
    leadre: bool = True
    features: bool = False
    dpo: bool = True
    policy: Policy = "all"
    luck: int = 0


SUMS = ("gmv", "expected_gmv", "revenue", "impressions", "clicks", "conversions", "exclusive")
"""Those of `Measured` that are sums, by user."""

CONTROL = Arm(name="without LEADRE", leadre=False)
AGAIN = Arm(name="without LEADRE, other luck", leadre=False, luck=1)
BRANCH = Arm(name="LEADRE as a branch")
FEATURES = Arm(name="branch and ranking features", features=True)
SFT = Arm(name="branch, before DPO", dpo=False)
ARRIVAL = Arm(name="branch, limited LLM, first come first served", policy="arrival")
ADAPTIVE = Arm(name="branch, limited LLM, ARD", policy="adaptive")
ARMS = (CONTROL, AGAIN, BRANCH, FEATURES, SFT, ARRIVAL, ADAPTIVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one arm brought in one world. Arrays are float64[users], sums over the experiment.

    Args:
        gmv: what conversions were worth to the advertisers.
        expected_gmv: the same, with the true probabilities in place of the dice; for measuring alone.
        revenue: what advertisers paid.
        impressions, clicks, conversions: how many.
        exclusive: impressions of ads that LEADRE alone retrieved.
        categories: int64[visits, slots], second-level category of each ad shown, -1 where the market won.
        ads_shown: how many different ads were shown to anybody.
        lists_llm, lists_cheap: how many lists were made.
    """

    gmv: Floats
    expected_gmv: Floats
    revenue: Floats
    impressions: Floats
    clicks: Floats
    conversions: Floats
    exclusive: Floats
    categories: NDArray[np.int64]
    ads_shown: int
    lists_llm: int
    lists_cheap: int

    def summary(self) -> dict[str, float]:
        """Return the arm's figures; sums are a user's mean."""
        shown, clicks = float(self.impressions.sum()), float(self.clicks.sum())
        return {
            "gmv": float(self.gmv.mean()),
            "expected_gmv": float(self.expected_gmv.mean()),
            "revenue": float(self.revenue.mean()),
            "impressions": float(self.impressions.mean()),
            "ctr": clicks / max(shown, 1.0),
            "conversion_rate": float(self.conversions.sum()) / max(clicks, 1.0),
            "consumption_ratio": float(self.exclusive.sum()) / max(shown, 1.0),
            "diversity": diversity(self.categories).score,
            "ads_shown": float(self.ads_shown),
            "lists_llm": float(self.lists_llm),
            "lists_cheap": float(self.lists_cheap),
        }
