"""What retrieval gives: beams from an engine, and a user's retrieval list. LEADRE §3.4, §4.4.1."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from leadre.domain.semantic_id import SemanticId


@dataclass(frozen=True, slots=True, kw_only=True)
class Beam:
    """A generated S-ID, its ad, and its score: the natural logarithm of its probability given the prompt."""

    sid: SemanticId
    ad_id: int
    log_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalList:
    """The ads retrieved for a user, best first.

    `event_at` is the time of the newest behavior the list was made from: a list with an older
    (event_at, release) never replaces a newer one.
    """

    user_id: int
    release: str
    index_version: str
    generated_at: datetime
    event_at: datetime | None
    beams: tuple[Beam, ...]
