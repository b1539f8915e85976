"""What a real system would know of a world: catalog, profiles, and the log so far. LEADRE §3.1.

Branches, the ranker and the LLM are given this, and nothing of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Behavior, Impression
from leadre.domain.users import Profile


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A world as its system sees it when its history ends. Ids of ads, users and content items count from 0.

    Args:
        ads: all, by id; those that `launched` says no of have never been shown.
        launched: bool[A].
        live: bool[A], which ads may be shown in the experiment.
        profiles: all users, by id.
        content_items: by id.
        behaviors: of the history, all domains.
        impressions: of the history; eCPM is simulated.
        cold: users of whom nothing is known when the experiment begins.
        learn_until: what the two-tower model and the LLM learn from is before this; the ranker learns from the rest.
        now: when the history ends and the rehearsal begins.
    """

    ads: tuple[Ad, ...]
    launched: NDArray[np.bool_]
    live: NDArray[np.bool_]
    profiles: tuple[Profile, ...]
    content_items: tuple[ContentItem, ...]
    behaviors: tuple[Behavior, ...]
    impressions: tuple[Impression, ...]
    cold: tuple[int, ...]
    learn_until: datetime
    now: datetime

    @cached_property
    def bids(self) -> NDArray[np.float64]:
        """What advertisers pay a click, float64[A]."""
        return np.array([ad.bid for ad in self.ads], np.float64)

    @cached_property
    def first_category(self) -> NDArray[np.int64]:
        """Number of each ad's first-level category, int64[A]."""
        return _numbered([ad.first_category for ad in self.ads])

    @cached_property
    def second_category(self) -> NDArray[np.int64]:
        """Number of each ad's second-level category among `second_names`, int64[A]."""
        number = {name: place for place, name in enumerate(self.second_names)}
        return np.array([number[ad.second_category] for ad in self.ads], np.int64)

    @cached_property
    def content_category(self) -> NDArray[np.int64]:
        """Number of each content item's category among `second_names`, int64[C]."""
        number = {name: place for place, name in enumerate(self.second_names)}
        return np.array([number[item.category] for item in self.content_items], np.int64)

    @cached_property
    def second_names(self) -> tuple[str, ...]:
        """Second-level categories of ads and of content items."""
        return tuple(sorted({ad.second_category for ad in self.ads} | {item.category for item in self.content_items}))

    @cached_property
    def advertiser(self) -> NDArray[np.int64]:
        """Number of each ad's advertiser, int64[A]."""
        return _numbered([str(ad.advertiser_id) for ad in self.ads])

    @cached_property
    def product(self) -> NDArray[np.int64]:
        """Number of each ad's standard product unit, int64[A]."""
        return _numbered([ad.spu for ad in self.ads])


def _numbered(names: list[str]) -> NDArray[np.int64]:
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
