"""Why an ad may not be shown to a user. LEADRE §3.3, §3.4: the filter over the trie's leaves, put into words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from leadre.domain.ads import Ad
from leadre.domain.targeting import values_of
from leadre.domain.users import Profile

Kind = Literal[
    "not_in_catalog", "not_in_index", "paused", "budget_exhausted", "not_started", "ended", "targeting", "own", "lag"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What keeps an ad from being shown: a kind for programs, a sentence for people."""

    kind: Kind
    text: str


def reasons(ad: Ad, profile: Profile, *, now: datetime) -> Iterator[Reason]:
    """Yield what the catalog has against showing an ad to a user now; nothing where it may be shown."""
    if not ad.live:
        yield Reason(kind="paused", text="the ad is paused; `leadre ads resume` lets it run")
    if ad.budget_exhausted:
        yield Reason(kind="budget_exhausted", text="the ad's budget is exhausted")
    if ad.starts_at is not None and now < ad.starts_at:
        yield Reason(kind="not_started", text=f"the ad starts at {ad.starts_at.isoformat()}")
    if ad.ends_at is not None and now >= ad.ends_at:
        yield Reason(kind="ended", text=f"the ad ended at {ad.ends_at.isoformat()}")
    if (age := ad.targeting.age) is not None and (profile.age is None or not age[0] <= profile.age <= age[1]):
        has = "unknown" if profile.age is None else str(profile.age)
        yield Reason(kind="targeting", text=f"the ad is for ages {age[0]} to {age[1]}; the user's age is {has}")
    for attribute, accepted in ad.targeting.accepted:
        if not set(accepted) & values_of(profile, attribute):
            words = attribute.replace("_", " ")
            has = repr(getattr(profile, attribute)) if getattr(profile, attribute) else "unknown"
            wants = ", ".join(map(repr, accepted)) or "nobody (its targeting cannot be read)"
            yield Reason(kind="targeting", text=f"the ad targets {words} {wants}; the user's {words} is {has}")
