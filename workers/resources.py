"""What a worker process holds: connections, and the live release's model. Each is made when first needed.

LEADRE §4.4.1.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING

from redis import Redis

from leadre.retrieval.refresh_queue import TAG, RefreshQueue
from leadre.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

    from leadre.pipelines.distribution.cheap_lane import CheapLane
    from leadre.pipelines.drain import Drained
    from leadre.pipelines.reconcile import Reconciler
    from leadre.pipelines.refresh import LiveRetriever
    from leadre.pipelines.rehydrate import Rehydrator
    from leadre.store.features.client import FeatureClient

logger = logging.getLogger(__name__)

DRAIN_S = 20.0
"""A drain ends after this and a new one follows: well before Celery takes its message for lost (60 s)."""

CHEAP_BATCH = 500
"""Users whom the cheap lane serves at once (ours): some 50 ms, so that the LLM's users do not wait for it."""


class Resources:
    """One process's resources. Heavy libraries are imported by what needs them: beat and the doorbell need none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queue = RefreshQueue.connect(settings.redis_url)
        self.draining = threading.Lock()
        self.stopping = threading.Event()
        self._opening = threading.Lock()
        self.indexed_until: dict[str, int] = {}  # by index version, see `add_new_ads`
        self.redis = Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=1)

    @property
    def database(self) -> Database:
        """The system of record."""
        with self._opening:
            return self._database

    @property
    def features(self) -> FeatureClient:
        """The feature store."""
        with self._opening:  # the drain and the upkeep want it at once
            return self._features

    @cached_property
    def _database(self) -> Database:
        from leadre.store.records.database import connect

        return connect(self.settings.database_url, application_name="leadre worker")

    @cached_property
    def _features(self) -> FeatureClient:
        from leadre.store.features.client import FeatureClient

        return FeatureClient(self.settings.feature_repo, self.settings.feast_environment())

    @cached_property
    def retriever(self) -> LiveRetriever:
        """The live release's retriever; it loads the release with the first batch."""
        from leadre.pipelines.refresh import LiveRetriever

        return LiveRetriever(self.settings, database=self.database, features=self.features)

    @cached_property
    def cheap_lane(self) -> CheapLane:
        """Makes lists without the LLM; it counts clicks with the first batch."""
        from leadre.pipelines.distribution.cheap_lane import CheapLane

        return CheapLane(self.settings, database=self.database, features=self.features)

    @cached_property
    def reconciler(self) -> Reconciler:
        """Finds stale users whom the queue has lost."""
        from leadre.pipelines.reconcile import Reconciler

        return Reconciler(self.database, self.queue)

    @cached_property
    def rehydrator(self) -> Rehydrator:
        """Fills an online store that was wiped."""
        from leadre.pipelines.rehydrate import Rehydrator

        return Rehydrator(
            database=self.database, features=self.features, queue=self.queue, list_ttl_s=self.settings.list_ttl_s
        )

    def live_index_version(self) -> str | None:
        """Return the live release's index version; None when no release is live."""
        from leadre.store.records.database import transaction
        from leadre.store.release.records import live_release

        with transaction(self.database) as connection:
            live = live_release(connection)
        return None if live is None else live.index_version

    def drain(self) -> Drained | None:
        """Work the refresh queue off, for `DRAIN_S` at most; None when this process does so already.

        Raises:
            LeadreError: as `leadre.pipelines.drain.drain`.
        """
        from leadre.pipelines.drain import LaneWork, drain

        if not self.draining.acquire(blocking=False):
            return None
        try:
            end = time.monotonic() + DRAIN_S
            return drain(
                self.queue,
                lanes=[
                    LaneWork(lane="cheap", ready=lambda: self._refresh_cheaply, batch=CHEAP_BATCH),
                    LaneWork(
                        lane="llm",
                        ready=self._ready,  # a release that cannot be loaded kills no user
                        batch=self.settings.refresh_batch,
                    ),
                ],
                lease_s=self.settings.lease_s,
                should_stop=lambda: self.stopping.is_set() or time.monotonic() > end,
            )
        finally:
            self.draining.release()

    def _ready(self) -> Callable[[Sequence[int]], object]:
        refresh = self.retriever.ready()
        return lambda user_ids: refresh(user_ids, now=datetime.now(UTC))

    def _refresh_cheaply(self, user_ids: Sequence[int]) -> None:
        self.cheap_lane.refresh(user_ids, now=datetime.now(UTC))

    @contextmanager
    def alone(self, task: str, *, at_most_s: float) -> Iterator[bool]:
        """Say whether no other process is in this block, and keep others out until it ends.

        Args:
            task: the block's name.
            at_most_s: seconds after which a process that died in the block is forgotten.
        """
        lock = self.redis.lock(f"{TAG}:alone:{task}", timeout=at_most_s, blocking=False)
        acquired = lock.acquire()
        try:
            yield acquired
        finally:
            if acquired and lock.owned():
                lock.release()


@cache
def resources() -> Resources:
    """Return this process's resources, by the settings in the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    return Resources(Settings.from_environment())
