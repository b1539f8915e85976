"""The nearline LLM of one arm: who is refreshed, with which budget, by which rule. LEADRE §4.4.1.

The release, its engine and the rules (groups, values, claim order, cut, cheap lane) are the product's own; what is left
out is the network, the queue's leases, and the floor for who has waited longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import Context
from leadre.retrieval.cheap_lane import CheapLists
from leadre.retrieval.distribution import adaptive_cut, claim_index, group_values
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.retrieval.priority import GROUPS, arpu_groups
from leadre.simulation.journal import Journal
from leadre.simulation.rivals.branches import newest_ads
from leadre.store.records.distribution.histories import NewestAds

Policy = Literal["all", "arrival", "adaptive"]
"""Who is refreshed: everyone who waits; with a budget, who has waited longest; with a budget, by Adaptive Resource
Distribution. Without a budget it makes no difference when a user who waits is refreshed before the next visit, so the
simulation does it then, and leaves out the lists that nobody would have read."""
_AT_ONCE = 64


class Nearline:
    """Lists of one arm's users, as a nearline worker keeps them.

    Args:
        release: what makes lists.
        inventory: of the release's index.
        beam_width: ads of a list.
        policy: who is refreshed.
        capacity: lists a tick, of any size with "all".
        unseen_discount: d of the claim order.
        arpu: float64[U], what each user brings.
        cheap: makes the lists of users below the cut; needed with "adaptive".
        lists: what there is already, by user.
    """

    def __init__(
        self,
        release: LoadedRelease,
        *,
        inventory: Inventory,
        beam_width: int,
        policy: Policy,
        capacity: float,
        unseen_discount: float,
        arpu: NDArray[np.float64],
        cheap: CheapLists | None = None,
        lists: Mapping[int, RetrievalList] | None = None,
    ) -> None:
        self._release, self._inventory, self._width = release, inventory, beam_width
        self._policy, self._capacity, self._discount, self._cheap = policy, capacity, unseen_discount, cheap
        self._group = arpu_groups(arpu).astype(np.int64)
        users = np.bincount(self._group, minlength=GROUPS)
        means = np.bincount(self._group, arpu, GROUPS) / np.maximum(users, 1)
        self._values = group_values(means, users, smoothing=1.0)
        self._waiting: dict[int, int] = {}  # user -> behaviors that the list does not know; who waits longest first
        self._saved, self._cut = 0.0, 0
        self.lists: dict[int, RetrievalList] = dict(lists or {})
        self.made = {"llm": 0, "cheap": 0}

    def mark(self, users: Mapping[int, int]) -> None:
        """Let users wait for a list, with how many positive behaviors the one they have does not know."""
        for user, unseen in users.items():
            self._waiting[user] = self._waiting.get(user, 0) + unseen

    def work(self, journal: Journal, *, now: datetime, visitors: Sequence[int]) -> None:
        """Refresh who waits, as far as the budget of a tick goes. What is left of it is kept for one more tick."""
        waiting, cheap = list(self._waiting), list[int]()
        if self._policy == "all":
            chosen = [user for user in visitors if user in self._waiting]
        else:
            budget = int(self._saved + self._capacity)
            ordered = waiting
            if self._policy == "adaptive":
                ordered, cheap = self._by_claim(waiting, budget)
            chosen = ordered[:budget]
            self._saved = min(self._saved + self._capacity - len(chosen), self._capacity)
        for start in range(0, len(chosen), _AT_ONCE):
            contexts = journal.contexts(chosen[start : start + _AT_ONCE], now=now)
            self._keep(self._release.lists(contexts, inventory=self._inventory, beam_width=self._width, now=now), "llm")
        if cheap and self._cheap is not None:
            asked = [_newest(context) for context in journal.contexts(cheap, now=now)]
            self._keep(self._cheap.lists(asked, inventory=self._inventory, now=now), "cheap")
        for user in (*chosen, *cheap):
            del self._waiting[user]

    def _by_claim(self, waiting: Sequence[int], budget: int) -> tuple[list[int], list[int]]:
        """Return the LLM's users, who is worth most first, and those of the cheap lane."""
        users = np.array(waiting, np.int64)
        groups = self._group[users]
        depth = np.bincount(groups, minlength=GROUPS)
        self._cut = adaptive_cut(depth, capacity=budget, before=self._cut)
        unseen = np.array([self._waiting[user] for user in waiting], np.int64)
        worth = claim_index(self._values[groups], unseen, discount=self._discount)
        order = users[np.argsort(-worth, kind="stable")]
        above = self._group[order] >= self._cut
        return order[above].tolist(), order[~above].tolist()

    def _keep(self, lists: Sequence[RetrievalList], kind: str) -> None:
        self.lists |= {each.user_id: each for each in lists}
        self.made[kind] += len(lists)


def _newest(context: Context) -> NewestAds:
    return NewestAds(
        profile=context.profile,
        behavior_sequence=len(context.behaviors),
        newest_at=context.newest_behavior_at,
        ad_ids=tuple(newest_ads(context)),
    )
