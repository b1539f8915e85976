"""The retrieval branches besides LEADRE: popularity, co-visitation, two-tower. LEADRE §5.3.

What other teams' branches would be. They see `Observed` and contexts; popularity and co-visitation are counted once,
over the whole history, so that no arm's users have a say in another's lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Domain
from leadre.domain.users import Context
from leadre.retrieval.cheap_lane import HISTORY, Visits
from leadre.simulation.observed import Observed
from leadre.simulation.rivals.two_tower import TwoTower

Ints = NDArray[np.int64]


class Branches:
    """Three branches over one inventory.

    Args:
        observed: the world.
        visits: co-visitation of the history's clicks, as the Mixer's own branch counts it.
        two_tower: trained on the history's clicks.
    """

    def __init__(self, observed: Observed, *, visits: Visits, two_tower: TwoTower) -> None:
        self.visits, self.two_tower = visits, two_tower
        ranked = visits.following.items[visits.ranked]
        self._popular = ranked[observed.live[ranked]].tolist()
        self._observed = observed

    def retrieve(
        self, contexts: Sequence[Context], vectors: NDArray[np.float32], k: int
    ) -> dict[str, list[Sequence[int]]]:
        """Return each branch's `k` ads of every user, best first.

        Args:
            contexts: of n users.
            vectors: float32[n, WIDTH], theirs by the two-tower model.
            k: as many as there are, at most.
        """
        return {
            "two_tower": self.two_tower.retrieve(vectors, k).tolist(),
            "covisitation": [self.visits.after(newest_ads(context), k) for context in contexts],
            "popular": [self._popular[:k]] * len(contexts),
        }


def newest_ads(context: Context) -> list[int]:
    """Return the ads that a user last clicked or converted, the newest first."""
    ads = [known.behavior.item_id for known in context.behaviors if known.behavior.domain is Domain.AD]
    return ads[: -HISTORY - 1 : -1]
