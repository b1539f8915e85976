"""The ranker: how likely a user clicks an ad, learned from logged impressions; with or without LEADRE's features.

LEADRE §5.3 ("retrieved ads are further incorporated into the ranking phase as additional features"). Gradient boosting
over user, ad, popularity, co-visitation and two-tower features, all from `Observed` and contexts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from leadre.derivation import Lists
from leadre.derivation.item_match import match
from leadre.derivation.lists import living
from leadre.derivation.neutral import NEUTRAL
from leadre.derivation.user_side import user_numbers
from leadre.domain.behavior import Domain
from leadre.domain.users import Context
from leadre.indexing.ad_table import AdTable
from leadre.simulation.observed import Observed
from leadre.simulation.rivals.branches import Branches, newest_ads

_PRIOR = 20.0
"""Impressions at the mean click rate that every rate begins with (ours)."""
_SPENDING = {"low": 0.0, "medium": 1.0, "high": 2.0}
USER_SIDE = ("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm")
"""The user-side features that are one number each."""
ITEM_SIDE = tuple(name for name in NEUTRAL if name != "list_age_s")
"""All match scores but the list's age: lists of the past are decoded all at once, so their ages mean nothing."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Ranker:
    """Click probabilities from a matrix of features.

    Args:
        features: float64[n, m], of logged impressions.
        clicked: bool[n].
        seed: of what little chance there is in the trees.
    """

    def __init__(self, features: Floats, clicked: NDArray[np.bool_], *, seed: int) -> None:
        self._trees = HistGradientBoostingClassifier(
            learning_rate=0.06,
            max_iter=120,
            max_leaf_nodes=12,
            min_samples_leaf=30,
            l2_regularization=5.0,
            early_stopping=False,
            random_state=seed,
        ).fit(features, clicked)

    def click_probability(self, features: Floats) -> Floats:
        """Return the probability of a click for each row, float64[n]."""
        found: Floats = self._trees.predict_proba(features)[:, 1]
        return found


class BaseFeatures:
    """What rankers have without LEADRE: facts, rates and counts of the log, and the rivals' scores.

    Args:
        observed: the world.
        branches: give co-visitation and two-tower scores.
        rates_until_s: click rates are counted over impressions before this (Unix seconds), so that no impression the
            ranker learns from is in them.
    """

    def __init__(self, observed: Observed, branches: Branches, *, rates_until_s: float) -> None:
        self._observed, self._branches = observed, branches
        shown = [each for each in observed.impressions if each.occurred_at.timestamp() < rates_until_s]
        ads = np.array([each.ad_id for each in shown], np.int64)
        clicked = np.array([each.clicked for each in shown], np.float64)
        mean = float(clicked.mean()) if len(clicked) else 0.1
        groups = (np.arange(len(observed.ads)), observed.second_category, observed.advertiser, observed.product)
        rates = [
            (np.bincount(group[ads], clicked, group.max() + 1) + _PRIOR * mean)
            / (np.bincount(group[ads], minlength=group.max() + 1) + _PRIOR)
            for group in groups
        ]
        seen = np.log1p(np.bincount(ads, minlength=len(observed.ads)))
        self._facts = np.stack([*(rate[group] for rate, group in zip(rates, groups, strict=True)), seen], axis=1)
        following = branches.visits.following
        self._followers = {int(item): row for row, item in enumerate(following.items.tolist())}
        self._pairs, self._items = following.pairs, following.items

    def __call__(self, contexts: Sequence[Context], vectors: NDArray[np.float32], users: Ints, ads: Ints) -> Floats:
        """Return features of n rows, float64[n, m].

        Args:
            contexts: of u users.
            vectors: float32[u, WIDTH], theirs.
            users: int64[n], positions in `contexts`.
            ads: int64[n].
        """
        observed = self._observed
        kinds = (observed.first_category, observed.second_category, observed.advertiser)
        counts = [np.zeros((len(contexts), kind.max() + 1)) for kind in kinds]
        own = np.zeros((len(contexts), len(observed.ads)))
        watched, latest = (np.zeros((len(contexts), len(observed.second_names))) for _ in range(2))
        last = np.full((len(contexts), 2), -1, np.int64)
        about = np.zeros((len(contexts), 6))
        followed = np.zeros((len(contexts), len(observed.ads)))
        for row, context in enumerate(contexts):
            items = [
                [known.behavior.item_id for known in context.behaviors if known.behavior.domain is domain]
                for domain in (Domain.AD, Domain.CONTENT)
            ]
            for kind, count in zip(kinds, counts, strict=True):
                np.add.at(count[row], kind[items[0]], 1.0)
            np.add.at(own[row], items[0], 1.0)
            np.add.at(watched[row], observed.content_category[items[1]], 1.0)
            np.add.at(latest[row], observed.content_category[items[1][-3:]], 1.0)
            if items[0]:
                last[row, 0] = observed.second_category[items[0][-1]]
            if items[1]:
                last[row, 1] = observed.content_category[items[1][-1]]
            profile, newest = context.profile, context.newest_behavior_at
            hours = (context.now - newest).total_seconds() / 3600 if newest else 1e4
            spending = _SPENDING.get(profile.consumption_level, 1.0)
            age, male = float(profile.age or 0), float(profile.sex == "male")
            about[row] = age, male, spending, len(items[0]), len(items[1]), hours
            for place, ad in enumerate(newest_ads(context), start=1):
                at = self._followers.get(ad)
                if at is not None:
                    low, high = self._pairs.indptr[at], self._pairs.indptr[at + 1]
                    followed[row, self._items[self._pairs.indices[low:high]]] += self._pairs.data[low:high] / place
        second = observed.second_category[ads]
        dots = np.einsum("nw,nw->n", vectors[users], self._branches.two_tower.ad_vectors[ads])
        columns = [
            *(count[users, kind[ads]] for kind, count in zip(kinds, counts, strict=True)),
            own[users, ads],
            watched[users, second],
            latest[users, second],
            last[users, 0] == second,
            last[users, 1] == second,
            followed[users, ads],
            dots,
            observed.first_category[ads],
        ]
        return np.hstack([about[users], self._facts[ads], np.stack(columns, axis=1)])


def leadre_features(lists: Lists, table: AdTable, *, users: Ints, ads: Ints, now_s: float | Floats) -> Floats:
    """Return LEADRE's ranking features of n rows, float64[n, m], by the derivation that serves rankers for real.

    Args:
        lists: of u users; absent ones give neutral features.
        table: of the index.
        users: int64[n], positions in `lists`.
        ads: int64[n].
        now_s: Unix seconds, one for all or float64[n].
    """
    found = match(
        lists, table.targets, list_of_row=users, ad_of_row=ads, target_of_row=table.rows(ads), request_time_s=now_s
    )
    alive, _ = living(lists, np.arange(len(lists)), request_time_s=np.nan, ttl_s=np.inf)
    numbers = user_numbers(lists, alive)
    return np.stack(
        [*(found[name] for name in ITEM_SIDE), *(numbers[name][users] for name in USER_SIDE)], axis=1
    ).astype(np.float64)
