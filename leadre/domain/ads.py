"""Ads: what the system retrieves. LEADRE §3.1-3.2."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from leadre.domain.targeting import EVERYBODY, Targeting


@dataclass(frozen=True, slots=True, kw_only=True)
class Ad:
    """An ad with the fields of the paper's description template and of the auction.

    `ad_id` is a 64-bit integer; `source_id` is its owner's own name for it. `bid` is in currency units per click;
    `bid_simulated` says that it is not a real one. `spu` is the standard product unit that it sells, "" if unknown.

    The ad may be shown while it is `live` (not paused) and not `budget_exhausted`, from `starts_at` until before
    `ends_at` (None: no bound), to the users that `targeting` admits.
    """

    ad_id: int
    source_id: str
    name: str
    ad_type: str
    first_category: str
    second_category: str
    attributes: tuple[str, ...]
    advertiser_id: int
    spu: str = ""
    bid: float
    bid_simulated: bool = False
    live: bool = True
    targeting: Targeting = EVERYBODY
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    budget_exhausted: bool = False
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentItem:
    """An item of the content domain: a micro-video, an article, a search. LEADRE §4.2.1 (5)."""

    content_id: int
    source_id: str
    title: str
    category: str
    spu: str = ""
