"""Users: profile, interest summary, and the context a prompt is made of. LEADRE §4.2.1 (2, 3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from leadre.domain.behavior import Behavior


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The paper's profile fields; an unknown one is empty (or None) and left out of the prompt.

    `arpu` is in currency units. `device` is ours, for targeting: no prompt shows it.
    """

    user_id: int
    age: int | None = None
    sex: str = ""
    residence: str = ""
    education_level: str = ""
    occupation: str = ""
    consumption_level: str = ""
    arpu: float = 0.0
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterestSummary:
    """Long-term interest: (category, count) pairs of positive behaviors in both domains, most frequent first.

    `disliked` counts the negative ones (impressions without a click, skips) likewise; the other two count by standard
    product unit (SPU).
    """

    liked: tuple[tuple[str, int], ...] = ()
    disliked: tuple[tuple[str, int], ...] = ()
    liked_spus: tuple[tuple[str, int], ...] = ()
    disliked_spus: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBehavior:
    """A positive behavior as a prompt shows it: `title` is the ad's name, or the content item's category and title."""

    behavior: Behavior
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that is known of a user at an instant: profile, summary and sequence.

    `behaviors` are positive, of both domains, in time order (oldest first), and none is later than `now`.
    """

    profile: Profile
    summary: InterestSummary
    behaviors: tuple[ContextBehavior, ...]
    now: datetime

    @property
    def newest_behavior_at(self) -> datetime | None:
        """When the newest behavior of the sequence took place."""
        return self.behaviors[-1].behavior.occurred_at if self.behaviors else None
