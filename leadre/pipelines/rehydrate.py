"""Rehydrate: an online store that was wiped gets every user's list back, and the refresh queue who is stale.

LEADRE §4.4.1. Workers look for the store's mark every second and do this when it is gone; people type
`leadre rehydrate` after they have put an old copy of Redis in place. Features other than lists come back with
`leadre materialize`, which notices a wiped store by itself; a refresh brings its users' features along.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import RedisError

from leadre.errors import Unavailable
from leadre.pipelines.reconcile import mark_all_stale
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.store.features.layout import VIEW
from leadre.store.features.materialization.definitions import find_views
from leadre.store.features.rehydration import distrust, is_whole, rehydrate_lists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine as Database

    from leadre.store.features.client import FeatureClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehydrated:
    """What a rehydration did: `lists` written and users `marked` in `seconds`."""

    lists: int
    marked: int
    seconds: float


class Rehydrator:
    """Looks whether the online store is whole, and fills it where it is not.

    Args:
        database: the system of record.
        features: the feature store.
        queue: the refresh queue.
        list_ttl_s: age at which a list counts as absent: older ones stay away.
    """

    def __init__(self, *, database: Database, features: FeatureClient, queue: RefreshQueue, list_ttl_s: float) -> None:
        self._database, self._queue, self._list_ttl_s = database, queue, list_ttl_s
        (self._view,) = find_views(features.store, [VIEW])
        self._online: Any = features.servers.connect_online()

    def close(self) -> None:
        """Close the connection to the online store."""
        self._online.close()

    def is_whole(self) -> bool:
        """Return whether the online store was filled from this database and not wiped since.

        Raises:
            Unavailable: PostgreSQL or Redis does not answer.
        """
        with _reachable():
            return is_whole(self._database, self._online)

    def distrust(self) -> None:
        """Take the online store for wiped, whatever its mark says. Raises as `is_whole`."""
        with _reachable():
            distrust(self._database, self._online, marker=uuid4())

    def rehydrate(self, *, now: datetime, report: Callable[[int], object] = lambda _: None) -> Rehydrated | None:
        """Fill the online store; nothing when another process is at it.

        Args:
            now: the instant that lists' ages are told from.
            report: told the lists written, from time to time.

        Returns:
            What was done; None when another process is at it.

        Raises:
            FeatureRowMismatch: lists did not arrive.
            Unavailable: PostgreSQL or Redis does not answer; the next call goes on where this one was.
        """
        began, marked = time.monotonic(), 0

        def mark() -> None:
            nonlocal marked
            marked = mark_all_stale(self._database, self._queue, now=now)

        with _reachable():
            lists = rehydrate_lists(
                self._database,
                self._online,
                self._view,
                since=now - timedelta(seconds=self._list_ttl_s),
                marker=uuid4(),
                before_marking=mark,
                report=report,
            )
        if lists is None:
            return None
        done = Rehydrated(lists=lists, marked=marked, seconds=time.monotonic() - began)
        logger.warning(
            "online_store_rehydrated", extra={"lists": lists, "marked": marked, "seconds": round(done.seconds, 3)}
        )
        return done


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"the online store's Redis: {error}; try again, or look whether it runs") from error
