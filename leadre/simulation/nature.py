"""The hidden truth of a simulated world: who comes when, wanting what, and what comes of an ad shown. Ours.

Only the loop holds a `Nature`. It gives content behaviors and outcomes, as users would; what branches, the ranker and
the LLM are given is `Observed` and contexts. `tests/simulation/test_firewall.py` holds that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.simulation.observed import Observed
from leadre.simulation.parameters import Parameters
from leadre.synthetic import CONVERSIONS_A_CLICK, TOPICS_A_PRODUCT, Truth, make_world

_WORLD_BID_SPREAD = 0.7  # of `make_world`
_BEFORE = timedelta(minutes=30)
_DISTRACTED = timedelta(minutes=20)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visits:
    """What anybody can see of the visits of rehearsal and experiment, in order of time.

    Args:
        users: int64[V].
        ticks: int64[V], ascending.
        content: what each visitor watched, searched or skipped before the ads, [V] tuples.
    """

    users: Ints
    ticks: Ints
    content: tuple[tuple[Behavior, ...], ...]


class Nature:
    """The truth, with all its dice thrown beforehand, so that every arm meets the same users, wants and luck.

    Common random numbers: whether user u would click ad a at visit v is one number, whatever the arm. What an arm shows
    changes which of these numbers count, and nothing else.

    Args:
        truth: of the world.
        bids: what advertisers pay a click, float64[A].
        parameters: of the simulation.
        observed: what the world's users have done so far.
        reference_ecpm: what the median competing price is a multiple of.
        seed: of the visits.
        luck: of clicks, conversions and competing prices.
    """

    def __init__(
        self,
        truth: Truth,
        *,
        bids: Floats,
        parameters: Parameters,
        observed: Observed,
        reference_ecpm: float,
        seed: int,
        luck: int = 0,
    ) -> None:
        self._truth, self._bids = truth, bids
        coming, dice = np.random.default_rng((seed, 1)), np.random.default_rng((seed, 2, luck))
        users, ticks = _arrivals(coming, parameters)
        self._intent, content = _wants(coming, truth, users, ticks, parameters=parameters, observed=observed)
        self.visits = Visits(users=users, ticks=ticks, content=content)
        shape = (len(users), len(bids))
        self._click_dice = dice.random(shape, np.float32)
        self._conversion_dice = dice.random(shape, np.float32)
        spread = parameters.market_spread * dice.standard_normal((len(users), parameters.slots))
        self.market: Floats = parameters.competition * reference_ecpm * np.exp(spread)
        """Competing prices per 1,000 impressions, float64[V, slots]; a bidder learns one by losing or paying it."""

    def outcomes(self, visits: Ints, ads: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return what comes of ads shown: clicked and converted, bool[n, k] both.

        Args:
            visits: int64[n], positions.
            ads: int64[n, k], -1 where no ad was shown.
        """
        shown, rows = ads >= 0, visits[:, None]
        ad = np.maximum(ads, 0)
        clicked = shown & (self._click_dice[rows, ad] < self._click_probability(visits, ad))
        return clicked, clicked & (self._conversion_dice[rows, ad] < CONVERSIONS_A_CLICK)

    def expected_value(self, visits: Ints, ads: Ints) -> Floats:
        """Return the GMV that ads shown bring on average, float64[n, k]; for measuring alone."""
        probability = self._click_probability(visits, np.maximum(ads, 0)) * CONVERSIONS_A_CLICK
        return np.where(ads >= 0, probability * self.value(ads), 0.0)

    def value(self, ads: Ints) -> Floats:
        """Return what a conversion of each ad is worth to its advertiser, float64 like `ads`.

        An advertiser that bids what a click is worth to it bids the conversion rate times the value of a conversion.
        """
        worth: Floats = self._bids[np.maximum(ads, 0)] / CONVERSIONS_A_CLICK
        return worth

    def _click_probability(self, visits: Ints, ads: Ints) -> Floats:
        return self._truth.click_probability(self.visits.users[visits], self._intent[visits], ads)


def make_nature(parameters: Parameters, *, seed: int, luck: int = 0) -> tuple[Nature, Observed]:
    """Make a world: its truth, and what its system sees of it. The same arguments give the same world.

    `noise`, `competition`, `visits` and what else comes after the beginning change nothing of the history; `cold` and
    `churn` hide a part of it. Another `luck` is the same world with other clicks and competing prices.
    """
    unlaunched = round(parameters.new_ads * parameters.ads)
    world = make_world(
        seed=seed,
        ads=parameters.ads,
        users=parameters.users,
        sessions=parameters.history_visits,
        slate=parameters.shown_a_visit,
        unlaunched=unlaunched,
    )
    stretch = parameters.bid_spread / _WORLD_BID_SPREAD
    bids = np.array([ad.bid for ad in world.ads]) ** stretch  # log-normal around 1: its logarithm is stretched
    factor = bids / np.array([ad.bid for ad in world.ads])
    rng = np.random.default_rng((seed, 0))
    order = rng.permutation(parameters.users)
    cold: set[int] = set(order[: round(parameters.cold * parameters.users)].tolist())
    old = parameters.ads - unlaunched
    changed = round(parameters.churn * old)
    launched = np.arange(parameters.ads) < old
    live = launched.copy()
    live[rng.permutation(old)[:changed]] = False
    live[old : old + changed] = True
    impressions = tuple(
        replace(shown, ecpm=shown.ecpm * float(factor[shown.ad_id]))
        for shown in world.impressions
        if shown.user_id not in cold
    )
    times = sorted(shown.occurred_at for shown in impressions)
    observed = Observed(
        ads=tuple(replace(ad, bid=float(bid)) for ad, bid in zip(world.ads, bids, strict=True)),
        launched=launched,
        live=live,
        profiles=world.profiles,
        content_items=world.content_items,
        behaviors=tuple(each for each in world.behaviors if each.user_id not in cold),
        impressions=impressions,
        learn_until=times[int(len(times) * (1 - parameters.ranker_share))],
        cold=tuple(sorted(cold)),
        now=world.now,
    )
    reference = float(np.median([shown.ecpm for shown in impressions]))
    nature = Nature(
        world.truth,
        bids=bids,
        parameters=parameters,
        observed=observed,
        reference_ecpm=reference,
        seed=seed,
        luck=luck,
    )
    return nature, observed


def instant(tick: int, *, observed: Observed, parameters: Parameters) -> datetime:
    """Return the simulated time at which a tick's visitors are shown ads."""
    return observed.now + timedelta(days=(tick + 1) * parameters.days / parameters.ticks)


def _arrivals(rng: np.random.Generator, parameters: Parameters) -> tuple[Ints, Ints]:
    """Return users and ticks of all visits, by tick: each user at as many different ticks as it has visits."""
    blocks, first = [], 0
    for ticks, visits in (
        (parameters.rehearsal_ticks, parameters.rehearsal),
        (parameters.ticks, parameters.visits),
    ):
        keys = rng.random((parameters.users, ticks))
        blocks.append(first + np.argsort(keys, axis=1)[:, :visits])
        first += ticks
    ticks_of = np.hstack(blocks)
    users = np.repeat(np.arange(parameters.users), ticks_of.shape[1])
    order = np.lexsort((users, ticks_of.ravel()))
    return users[order], ticks_of.ravel()[order].astype(np.int64)


def _wants(
    rng: np.random.Generator,
    truth: Truth,
    users: Ints,
    ticks: Ints,
    *,
    parameters: Parameters,
    observed: Observed,
) -> tuple[Ints, tuple[tuple[Behavior, ...], ...]]:
    """Return the product each visitor has in mind, and the content that shows it: the history's dice, thrown on."""
    products = len(truth.follow_up)
    order = np.lexsort((ticks, users))  # a user's visits beside each other
    by_user = order.reshape(parameters.users, -1)
    wanted, alone = np.empty(len(users), np.int64), np.empty(len(users), np.bool_)
    intent = truth.last_intent
    for number in range(by_user.shape[1]):
        intent = truth.next_intent(rng, intent)
        stray, product = rng.random(parameters.users), rng.integers(0, products, parameters.users)
        wanted[by_user[:, number]] = np.where(stray < parameters.noise, product, intent)
        alone[by_user[:, number]] = stray < parameters.noise
    watched, distracted = rng.random(len(users)) < 0.85, rng.random(len(users)) < 0.3
    topics = rng.integers(0, TOPICS_A_PRODUCT, (2, len(users)))
    others = rng.integers(0, products, len(users))
    content = []
    for visit, (user, tick) in enumerate(zip(users.tolist(), ticks.tolist(), strict=True)):
        at = instant(tick, observed=observed, parameters=parameters)
        seen = []
        if watched[visit] and not alone[visit]:
            topic = int(topics[0, visit])
            action = Action.SEARCH if topic == 0 else Action.WATCH
            seen.append(
                _content(user, action, int(wanted[visit]) * TOPICS_A_PRODUCT + topic, at - parameters.pace * _BEFORE)
            )
        if distracted[visit]:
            item = int(others[visit]) * TOPICS_A_PRODUCT + int(topics[1, visit])
            seen.append(_content(user, Action.SKIP, item, at - parameters.pace * _DISTRACTED))
        content.append(tuple(seen))
    return wanted, tuple(content)


def _content(user: int, action: Action, item: int, at: datetime) -> Behavior:
    return Behavior(user_id=user, domain=Domain.CONTENT, action=action, item_id=item, occurred_at=at)
