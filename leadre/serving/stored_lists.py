"""Reading stored retrieval lists for requests. LEADRE §4.4.1: the online store is all that the request path reads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leadre.store.features.client import FeatureClient
    from leadre.store.features.list_reader import RetrievedRow


class StoredLists:
    """Reads lists, and opens the feature store for it: in the background, again and again while a server is down.

    Args:
        open_features: opens the feature store; takes seconds.
        ttl_s: an older list counts as absent.
        clock: the time.
    """

    def __init__(
        self, open_features: Callable[[], FeatureClient], *, ttl_s: float, clock: Callable[[], datetime]
    ) -> None:
        self._open_features, self._ttl_s, self._clock = open_features, ttl_s, clock
        self._features: FeatureClient | None = None
        self._opening = threading.Lock()

    def open(self) -> FeatureClient:
        """Return the feature store, opened now if it is not yet.

        Raises:
            Unavailable: PostgreSQL or Redis does not answer.
        """
        with self._opening:
            if self._features is None:
                self._features = self._open_features()
            return self._features

    def __call__(self, user_id: int) -> RetrievedRow | None:
        """Return a user's list; None when there is none, or only one that is too old. Blocks.

        Raises:
            Unavailable: the online store does not answer.
        """
        found = self.open().retrieval_lists([user_id])[0]
        if found is None or (self._clock() - found.generated_at).total_seconds() > self._ttl_s:
            return None
        return found
