"""What retrieval gives: beams from an engine, and a user's retrieval list. LEADRE §3.4, §4.4.1."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from leadre.domain.semantic_id import SemanticId


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """A generated S-ID, its ad, and its score: the natural logarithm of its probability given the prompt."""

    sid: SemanticId
    ad_id: int
    log_probability: float


Source = Literal["llm", "covisitation", "popular"]
"""What retrieved a list: the LLM, or the cheap lane in its stead (§4.4.1, Adaptive Resource Distribution)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalList:
    """The ads retrieved for a user, best first.

    A list never replaces one with a larger (release_epoch, behavior_sequence), nor, of equal ones, a younger one.

    Args:
        user_id: whose.
        release: what made it; of a list of the cheap lane, the release that was live.
        index_version: the index of its S-IDs.
        generated_at: when it was made.
        event_at: time of the newest behavior it was made from; None when there was none.
        beams: best first.
        release_epoch: `ReleaseRow.sequence`, which grows with every promotion and rollback.
        behavior_sequence: `user_state.behavior_sequence` when the behaviors were read: how many it rests on.
        source: what retrieved it.
    """

    user_id: int
    release: str
    index_version: str
    generated_at: datetime
    event_at: datetime | None
    beams: tuple[Beam, ...]
    release_epoch: int = 0
    behavior_sequence: int = 0
    source: Source = "llm"
