"""The closed loop of one arm: visits, retrieval, merge, ranking, auction, outcomes, and back into the contexts.

LEADRE §4.4.1, §5.3. The one place where what the system decides meets the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.serving.mixer.merging import MixedAd, merge
from leadre.simulation.arms import SUMS, Arm, Measured
from leadre.simulation.journal import Journal
from leadre.simulation.market import run_auctions
from leadre.simulation.nature import Nature, instant
from leadre.simulation.nearline import Nearline, Stored
from leadre.simulation.parameters import Parameters
from leadre.simulation.rivals.system import Log, System

QUOTAS = {"leadre": 2, "two_tower": 2, "covisitation": 1, "popular": 1}
"""Ads a round of the merge, in order of turns: the Mixer's default, and the two-tower branch as LEADRE's equal."""
_SPARE = 2  # as the Mixer asks its branches

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class State:
    """Where an arm stands: what users have done, and their lists.

    Args:
        journal: of the arm.
        nearline: keeps its lists; None without LEADRE.
    """

    journal: Journal
    nearline: Nearline | None


def run_arm(
    arm: Arm,
    nature: Nature,
    system: System,
    state: State,
    *,
    parameters: Parameters,
    ticks: range,
) -> tuple[Measured, Log]:
    """Run some ticks for one arm, from a state that goes on with it.

    Args:
        arm: which.
        nature: the truth: gives visits and outcomes.
        system: branches and rankers.
        state: where the arm stands.
        parameters: of the simulation.
        ticks: which.

    Returns:
        What it brought, and its impressions as a ranker may learn from them.
    """
    observed, visits = system.observed, nature.visits
    journal, nearline = state.journal, state.nearline
    sums = {name: np.zeros(len(observed.profiles)) for name in SUMS}
    some = np.flatnonzero((visits.ticks >= ticks.start) & (visits.ticks < ticks.stop))
    categories = np.full((len(some), parameters.slots), -1, np.int64)
    ever = np.zeros(len(observed.ads), np.bool_)
    logs = []
    for tick in ticks:
        now = instant(tick, observed=observed, parameters=parameters)
        here = np.flatnonzero(visits.ticks == tick)
        visitors = visits.users[here]
        content = [each for visit in here.tolist() for each in visits.content[visit]]
        journal.add(content)
        stored = None
        if nearline is not None:
            nearline.report(content)
            stored = nearline.lists(visitors.tolist(), now=now)
        decided = decide(arm, journal, system, visitors, now=now, parameters=parameters, stored=stored)
        ads, paid, places = _sell(decided, system, nature.market[here])
        clicked, converted = nature.outcomes(here, ads)
        shown = ads >= 0
        for name, values in (
            ("gmv", np.where(converted, nature.value(ads), 0.0)),
            ("expected_gmv", nature.expected_value(here, ads)),
            ("revenue", paid),
            ("impressions", shown),
            ("clicks", clicked),
            ("conversions", converted),
            ("exclusive", shown & np.take_along_axis(decided.alone, places, axis=1)),
        ):
            np.add.at(sums[name], visitors, values.sum(axis=1))
        categories[here - some[0]] = np.where(shown, observed.second_category[np.maximum(ads, 0)], -1)
        ever[ads[shown]] = True
        logs.append(decided.log(places, shown, clicked))
        clicks = _clicks(visitors, ads, clicked, converted, now=now, pace=parameters.pace)
        journal.add(clicks)
        if nearline is not None:
            nearline.report(clicks, visitors=visitors.tolist())
    measured = Measured(
        **sums,
        categories=categories,
        ads_shown=int(ever.sum()),
        lists_llm=nearline.made["llm"] if nearline else 0,
        lists_cheap=nearline.made["cheap"] if nearline else 0,
    )
    return measured, reduce(Log.and_then, logs)


class Decided:
    """Merged lists of n visits, padded to one length, with what the ranker made of them.

    Attributes:
        ads: int64[n, limit], -1 where there is none.
        alone: bool[n, limit], whether LEADRE alone found the ad.
        probability: float64[n, limit], of a click.
    """

    def __init__(self, merged: Sequence[Sequence[MixedAd]], limit: int) -> None:
        self.ads = np.full((len(merged), limit), -1, np.int64)
        self.alone = np.zeros((len(merged), limit), np.bool_)
        for row, mixed in enumerate(merged):
            self.ads[row, : len(mixed)] = [ad.ad_id for ad in mixed]
            self.alone[row, : len(mixed)] = [ad.branches == ("leadre",) for ad in mixed]
        self.probability = np.zeros(self.ads.shape)
        self.base, self.leadre = np.empty((0, 0)), np.empty((0, 0))

    @property
    def rows(self) -> tuple[Ints, Ints]:
        """Visits and places of all candidates, in the order of `base` and `leadre`."""
        rows, places = np.nonzero(self.ads >= 0)
        return rows.astype(np.int64), places.astype(np.int64)

    def log(self, places: Ints, shown: NDArray[np.bool_], clicked: NDArray[np.bool_]) -> Log:
        """Return the impressions of some places, [n, slots] each, with their features."""
        number = np.full(self.ads.shape, -1)
        number[self.rows] = np.arange(len(self.base))
        chosen = np.take_along_axis(number, places, axis=1)[shown]
        return Log(base=self.base[chosen], leadre=self.leadre[chosen], clicked=clicked[shown])


def decide(
    arm: Arm,
    journal: Journal,
    system: System,
    visitors: Ints,
    *,
    now: datetime,
    parameters: Parameters,
    stored: Stored | None,
) -> Decided:
    """Retrieve, merge and rank for everyone who is here. Nothing of the truth comes in."""
    observed = system.observed
    contexts = journal.contexts(visitors.tolist(), now=now)
    vectors = system.branches.two_tower.users(contexts, observed)
    count = _SPARE * parameters.limit
    retrieved = system.branches.retrieve(contexts, vectors, count)
    if stored is not None:
        retrieved = {"leadre": [ads[:count] for ads in stored.ads], **retrieved}
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
    decided = Decided(merged, parameters.limit)
    rows, places = decided.rows
    ads = decided.ads[rows, places]
    decided.base = system.features(contexts, vectors, rows, ads)
    decided.leadre = np.zeros((len(rows), system.log.leadre.shape[1]))
    if stored is not None:
        decided.leadre = stored.features(rows, ads)
    features = np.hstack([decided.base, decided.leadre]) if arm.features else decided.base
    decided.probability[rows, places] = system.rankers[arm.features].click_probability(features)
    return decided


def _sell(decided: Decided, system: System, market: Floats) -> tuple[Ints, Floats, Ints]:
    """Return the ads shown in each slot, -1 where the market won, what was paid, and their places among candidates."""
    bids = system.observed.bids[np.maximum(decided.ads, 0)]
    ecpm = np.where(decided.ads >= 0, 1000 * decided.probability * bids, -np.inf)
    winners, paid = run_auctions(ecpm, market)
    places = np.maximum(winners, 0)
    return np.where(winners >= 0, np.take_along_axis(decided.ads, places, axis=1), -1), paid, places


def _clicks(
    visitors: Ints,
    ads: Ints,
    clicked: NDArray[np.bool_],
    converted: NDArray[np.bool_],
    *,
    now: datetime,
    pace: float,
) -> list[Behavior]:
    return [
        Behavior(
            user_id=int(visitors[row]),
            domain=Domain.AD,
            action=Action.CONVERSION if converted[row, slot] else Action.CLICK,
            item_id=int(ads[row, slot]),
            occurred_at=now + pace * timedelta(minutes=slot + 1),
        )
        for row, slot in np.argwhere(clicked).tolist()
    ]
