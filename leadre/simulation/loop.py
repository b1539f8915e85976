"""The closed loop of one arm: visits, retrieval, merge, ranking, auction, outcomes, and back into the contexts.

LEADRE §4.4.1, §5.3. The one place where what the system decides meets the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import Lists
from leadre.derivation.neutral import LIST_TTL_S
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.retrieval import RetrievalList
from leadre.recipe import PromptRecipe
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.serving.mixer.merging import MixedAd, merge
from leadre.simulation.arms import Arm, Measured
from leadre.simulation.journal import Journal
from leadre.simulation.market import run_auctions
from leadre.simulation.nature import Nature
from leadre.simulation.nearline import Nearline
from leadre.simulation.parameters import Parameters
from leadre.simulation.ranker import leadre_features
from leadre.simulation.system import System

QUOTAS = {"leadre": 2, "two_tower": 2, "covisitation": 1, "popular": 1}
"""Ads a round of the merge, in order of turns: the Mixer's default, and the two-tower branch as LEADRE's equal."""
_SPARE = 2  # as the Mixer asks its branches

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def run_arm(
    arm: Arm,
    nature: Nature,
    system: System,
    *,
    parameters: Parameters,
    recipe: PromptRecipe,
    release: LoadedRelease | None = None,
    nearline: Nearline | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Run the experiment for one arm.

    Args:
        arm: which.
        nature: the truth: gives visits and outcomes.
        system: branches and rankers.
        parameters: of the simulation.
        recipe: of prompts, for contexts.
        release: LEADRE's, where the arm has it.
        nearline: keeps its lists.
        progress: called with the ticks done, and how many there are.
    """
    observed, visits = system.observed, nature.visits
    journal = Journal(observed, recipe=recipe)
    users = len(observed.profiles)
    sums = {name: np.zeros(users) for name in Measured.__dataclass_fields__ if name not in _NOT_SUMS}
    categories = np.full((len(visits.users), parameters.slots), -1, np.int64)
    ever = np.zeros(len(observed.ads), np.bool_)
    for tick in range(parameters.ticks):
        now = observed.now + timedelta(days=(tick + 1) * parameters.days / parameters.ticks)
        here = np.flatnonzero(visits.ticks == tick)
        visitors = visits.users[here]
        new = journal.add(each for visit in here.tolist() for each in visits.content[visit])
        if nearline is not None:
            nearline.mark(new)
            nearline.work(journal, now=now, visitors=visitors.tolist())
        decided = _decide(arm, journal, system, visitors, now=now, parameters=parameters, lists=_of(nearline, release))
        ads, paid, alone = _sell(decided, system, nature.market[here])
        clicked, converted = nature.outcomes(here, ads)
        shown = ads >= 0
        worth = nature.value(ads)
        for name, values in (
            ("gmv", np.where(converted, worth, 0.0)),
            ("expected_gmv", nature.expected_value(here, ads)),
            ("revenue", paid),
            ("impressions", shown),
            ("clicks", clicked),
            ("conversions", converted),
            ("exclusive", alone),
        ):
            np.add.at(sums[name], visitors, values.sum(axis=1))
        categories[here] = np.where(shown, observed.second_category[np.maximum(ads, 0)], -1)
        ever[ads[shown]] = True
        clicks = journal.add(_clicks(visitors, ads, clicked, converted, now=now))
        if nearline is not None:
            nearline.mark(dict.fromkeys(visitors.tolist(), 0) | clicks)  # a request marks its user
        if progress is not None:
            progress(tick + 1, parameters.ticks)
    return Measured(
        **sums,
        categories=categories,
        ads_shown=int(ever.sum()),
        lists_llm=nearline.made["llm"] if nearline else 0,
        lists_cheap=nearline.made["cheap"] if nearline else 0,
    )


_NOT_SUMS = ("categories", "ads_shown", "lists_llm", "lists_cheap")
_Stored = tuple[Mapping[int, RetrievalList], LoadedRelease]


class _Decided:
    """Merged lists of n visits with their expected click probabilities, padded to one length, -1 and 0."""

    def __init__(self, merged: Sequence[Sequence[MixedAd]], limit: int) -> None:
        self.ads = np.full((len(merged), limit), -1, np.int64)
        self.alone = np.zeros((len(merged), limit), np.bool_)
        for row, mixed in enumerate(merged):
            self.ads[row, : len(mixed)] = [ad.ad_id for ad in mixed]
            self.alone[row, : len(mixed)] = [ad.branches == ("leadre",) for ad in mixed]
        self.probability = np.zeros(self.ads.shape)


def _of(nearline: Nearline | None, release: LoadedRelease | None) -> _Stored | None:
    return None if nearline is None or release is None else (nearline.lists, release)


def _decide(
    arm: Arm,
    journal: Journal,
    system: System,
    visitors: Ints,
    *,
    now: datetime,
    parameters: Parameters,
    lists: _Stored | None,
) -> _Decided:
    """Retrieve, merge and rank for everyone who is here. Nothing of the truth comes in."""
    observed = system.observed
    contexts = journal.contexts(visitors.tolist(), now=now)
    vectors = system.branches.two_tower.users(contexts, observed)
    count = _SPARE * parameters.limit
    retrieved = system.branches.retrieve(contexts, vectors, count)
    stored: list[RetrievalList | None] = [None] * len(visitors)
    if lists is not None:
        fresh = {user: each for user, each in lists[0].items() if (now - each.generated_at).total_seconds() < LIST_TTL_S}
        stored = [fresh.get(user) for user in visitors.tolist()]
        ads_of = [[beam.ad_id for beam in each.beams] if each else [] for each in stored]
        retrieved = {"leadre": [ads[:count] for ads in ads_of], **retrieved}
    live = observed.live.tolist()
    quotas = {name: QUOTAS[name] for name in retrieved}
    merged = [
        merge(
            {name: of_users[row] for name, of_users in retrieved.items()},
            quotas=quotas,
            live=live.__getitem__,
            limit=parameters.limit,
        )
        for row in range(len(visitors))
    ]
    decided = _Decided(merged, parameters.limit)
    rows, places = np.nonzero(decided.ads >= 0)
    if not len(rows):
        return decided
    ads = decided.ads[rows, places]
    features = system.features(contexts, vectors, rows, ads)
    ranker = system.ranker
    if arm.features and lists is not None and system.leadre_ranker is not None:
        derived, of_visit = _derived(stored, system, lists[1])
        more = leadre_features(derived, system.table, users=of_visit[rows], ads=ads, now_s=now.timestamp())
        features, ranker = np.hstack([features, more]), system.leadre_ranker
    decided.probability[rows, places] = ranker.click_probability(features)
    return decided


def _derived(stored: Sequence[RetrievalList | None], system: System, release: LoadedRelease) -> tuple[Lists, Ints]:
    """Return the lists that are there, an empty one beside them, and which of these each visit has."""
    there = [each for each in stored if each is not None]
    empty = RetrievalList(
        user_id=-1,
        release=release.release,
        index_version=release.index.version,
        generated_at=system.observed.now,
        event_at=None,
        beams=(),
    )
    places = np.cumsum([each is not None for each in stored]) - 1
    absent = np.array([each is None for each in stored], np.bool_)
    return system.derived([*there, empty], release), np.where(absent, len(there), places)


def _sell(decided: _Decided, system: System, market: Floats) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """Return the ads shown in each slot, -1 where the market won, what was paid, and whether LEADRE alone found them."""
    bids = system.observed.bids[np.maximum(decided.ads, 0)]
    ecpm = np.where(decided.ads >= 0, 1000 * decided.probability * bids, -np.inf)
    winners, paid = run_auctions(ecpm, market)
    place, won = np.maximum(winners, 0), winners >= 0
    ads = np.where(won, np.take_along_axis(decided.ads, place, axis=1), -1)
    return ads, paid, won & np.take_along_axis(decided.alone, place, axis=1)


def _clicks(
    visitors: Ints, ads: Ints, clicked: NDArray[np.bool_], converted: NDArray[np.bool_], *, now: datetime
) -> list[Behavior]:
    return [
        Behavior(
            user_id=int(visitors[row]),
            domain=Domain.AD,
            action=Action.CONVERSION if converted[row, slot] else Action.CLICK,
            item_id=int(ads[row, slot]),
            occurred_at=now + timedelta(minutes=slot + 1),
        )
        for row, slot in np.argwhere(clicked).tolist()
    ]
