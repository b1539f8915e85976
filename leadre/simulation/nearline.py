"""The nearline LLM of one arm, and its lists as the ads of a visit find them. LEADRE §4.4.1.

`Nearline` is what the loop needs, on either clock. `FastNearline` is one without servers: the release, its engine and
the rules (groups, values, claim order, cut, cheap lane) are the product's own; what is left out is the network, the
queue's leases, and the floor for who has waited longest. The other is `leadre.simulation.real.nearline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.neutral import LIST_TTL_S
from leadre.domain.behavior import Behavior
from leadre.domain.retrieval import RetrievalList
from leadre.domain.users import Context
from leadre.retrieval.cheap_lane import CheapLists
from leadre.retrieval.distribution import adaptive_cut, claim_index, group_values
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.retrieval.priority import GROUPS, arpu_groups
from leadre.simulation.journal import Journal
from leadre.simulation.rivals.branches import newest_ads
from leadre.simulation.rivals.ranker import leadre_features
from leadre.simulation.rivals.system import System, derived_lists
from leadre.store.records.distribution.histories import NewestAds

Policy = Literal["all", "arrival", "adaptive"]
"""Who is refreshed: everyone who waits; with a budget, who has waited longest; with a budget, by Adaptive Resource
Distribution. Without a budget it makes no difference when a user who waits is refreshed before the next visit, so the
simulation does it then, and leaves out the lists that nobody would have read."""
_AT_ONCE = 64

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Stored(Protocol):
    """The lists of some visitors, as the serving side has them."""

    @property
    def ads(self) -> Sequence[Sequence[int]]:
        """Each visitor's ads, best first; none without a list that counts."""
        ...

    def features(self, visitors: Ints, ads: Ints) -> Floats:
        """Return LEADRE's ranking features of n rows, float64[n, m].

        Args:
            visitors: int64[n], positions among the visitors, ascending.
            ads: int64[n].
        """
        ...


class Nearline(Protocol):
    """What keeps the lists of one arm's users."""

    @property
    def made(self) -> Mapping[str, int]:
        """How many lists the LLM ("llm") and the cheap lane ("cheap") made."""
        ...

    def report(self, behaviors: Sequence[Behavior], *, visitors: Sequence[int] = ()) -> None:
        """Take in what users did, and who was shown ads: both wait for a list."""
        ...

    def lists(self, visitors: Sequence[int], *, now: datetime) -> Stored:
        """Return the lists of who is here, as they are when their ads are retrieved.

        Args:
            visitors: different users.
            now: the instant.
        """
        ...


class FastNearline:
    """Lists of one arm's users, as a nearline worker keeps them.

    Args:
        release: what makes lists.
        journal: all that users do.
        system: says what ads earn, for the features of lists.
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
        journal: Journal,
        system: System,
        inventory: Inventory,
        beam_width: int,
        policy: Policy,
        capacity: float,
        unseen_discount: float,
        arpu: NDArray[np.float64],
        cheap: CheapLists | None = None,
        lists: Mapping[int, RetrievalList] | None = None,
    ) -> None:
        self._release, self._journal, self._system = release, journal, system
        self._inventory, self._width = inventory, beam_width
        self._policy, self._capacity, self._discount, self._cheap = policy, capacity, unseen_discount, cheap
        self._group = arpu_groups(arpu).astype(np.int64)
        users = np.bincount(self._group, minlength=GROUPS)
        means = np.bincount(self._group, arpu, GROUPS) / np.maximum(users, 1)
        self._values = group_values(means, users, smoothing=1.0)
        self._waiting: dict[int, int] = {}  # user -> behaviors that the list does not know; who waits longest first
        self._saved, self._cut = 0.0, 0
        self.kept: dict[int, RetrievalList] = dict(lists or {})
        """The newest list of each user."""
        self.made = {"llm": 0, "cheap": 0}

    def report(self, behaviors: Sequence[Behavior], *, visitors: Sequence[int] = ()) -> None:
        """Let users wait for a list, with how many positive behaviors the one they have does not know."""
        for user in visitors:
            self._waiting.setdefault(user, 0)
        for each in behaviors:
            if each.positive:
                self._waiting[each.user_id] = self._waiting.get(each.user_id, 0) + 1

    def lists(self, visitors: Sequence[int], *, now: datetime) -> Stored:
        """Refresh who waits, and return the visitors' lists that are not too old."""
        self._work(now=now, visitors=visitors)
        kept = [self.kept.get(user) for user in visitors]
        fresh = [each if each and (now - each.generated_at).total_seconds() < LIST_TTL_S else None for each in kept]
        return _InMemory(fresh, self._release, system=self._system, now=now)

    def _work(self, *, now: datetime, visitors: Sequence[int]) -> None:
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
            contexts = self._journal.contexts(chosen[start : start + _AT_ONCE], now=now)
            self._keep(self._release.lists(contexts, inventory=self._inventory, beam_width=self._width, now=now), "llm")
        if cheap and self._cheap is not None:
            asked = [_newest(context) for context in self._journal.contexts(cheap, now=now)]
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
        self.kept |= {each.user_id: each for each in lists}
        self.made[kind] += len(lists)


class _InMemory:
    """Lists that no store has written, with the features that a worker would write beside them."""

    def __init__(
        self, stored: Sequence[RetrievalList | None], release: LoadedRelease, *, system: System, now: datetime
    ) -> None:
        self._stored, self._release, self._system, self._now = stored, release, system, now
        self.ads = [[beam.ad_id for beam in each.beams] if each else [] for each in stored]

    def features(self, visitors: Ints, ads: Ints) -> Floats:
        """Derive features by the function that serves rankers for real."""
        there = [each for each in self._stored if each is not None]
        empty = RetrievalList(
            user_id=-1,
            release=self._release.release,
            index_version=self._release.index.version,
            generated_at=self._system.observed.now,
            event_at=None,
            beams=(),
        )
        derived = derived_lists([*there, empty], self._release, ecpm=self._system.ecpm)
        absent = np.array([each is None for each in self._stored], np.bool_)
        places = np.where(absent, len(there), np.cumsum(~absent) - 1)
        return leadre_features(
            derived, self._system.table, users=places[visitors], ads=ads, now_s=self._now.timestamp()
        )


def _newest(context: Context) -> NewestAds:
    return NewestAds(
        profile=context.profile,
        behavior_sequence=len(context.behaviors),
        newest_at=context.newest_behavior_at,
        ad_ids=tuple(newest_ads(context)),
    )
