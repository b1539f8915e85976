"""The cheap lane at work: users to stored lists without the LLM, over the live release's index.

LEADRE §4.4.1, Adaptive Resource Distribution. Beside `LiveRetriever`, and without a model: a process that only works on
this lane needs no GPU. Which ads follow which is counted anew in the background; batches go on with the last counts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from leadre.artifacts import MANIFEST
from leadre.domain.retrieval import RetrievalList
from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.cheap_lane import HISTORY, CheapLists, Visits
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.retriever import LIVE_ADS_AGE
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import transaction
from leadre.store.records.distribution.histories import ad_histories, newest_ads
from leadre.store.release.records import ReleaseRow, named_release

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

logger = logging.getLogger(__name__)

COUNTED = 2_000_000
"""Newest clicks that are counted, in some 20 s of a background thread (ours)."""


class CheapLane:
    """Makes and stores lists without the LLM.

    Args:
        settings: where the indexes are, how wide a list is, which clicks are counted and how often.
        database: the system of record.
        features: the feature store.
    """

    def __init__(self, settings: Settings, *, database: Database, features: FeatureClient) -> None:
        self._settings, self._database, self._features = settings, database, features
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visits")
        self._counting: Future[Visits] | None = None
        self._counted: tuple[datetime, Visits] | None = None
        self._over: tuple[tuple[str, int], Inventory] | None = None
        self._read_at: datetime | None = None
        self._lists: tuple[tuple[object, ...], CheapLists] | None = None

    def refresh(self, user_ids: Sequence[int], *, now: datetime) -> list[RetrievalList]:
        """Make lists for users as of `now`, and store them with their features.

        Summaries and sequences are not brought up to date for it: the LLM's refresh or the hourly run does that.

        Args:
            user_ids: different users.
            now: the instant; later behaviors are not seen.

        Returns:
            One list a user, in the order given.

        Raises:
            ConfigError: no release is live.
            ArtifactIncomplete: its index cannot be loaded.
            Unavailable: a server does not answer.
        """
        if not user_ids:
            return []
        with transaction(self._database) as connection:
            live = named_release(connection)
        visits, inventory = self._visits(now), self._inventory(live, now)
        which = (live.release, live.sequence, visits, inventory)
        if self._lists is None or self._lists[0] != which:
            made = CheapLists(
                inventory.index,
                visits,
                release=live.release,
                release_epoch=live.sequence,
                beam_width=self._settings.beam_width,
            )
            self._lists = which, made
        with transaction(self._database) as connection:
            asked = newest_ads(connection, user_ids, now=now, count=HISTORY)
        lists = self._lists[1].lists(asked, inventory=inventory, now=now)
        self._features.push_lists(lists, index=inventory.index)
        return lists

    def _visits(self, now: datetime) -> Visits:
        """Return the newest counts; the first ones are waited for."""
        if self._counting is not None and self._counting.done():
            counting, self._counting = self._counting, None
            if (error := counting.exception()) is None:
                self._counted = now, counting.result()
            elif self._counted is None:
                raise error
            else:
                logger.warning("visits_not_counted", extra={"error": type(error).__name__})
        due = self._counted is None or abs(now - self._counted[0]).total_seconds() >= self._settings.visits_every_s
        if due and self._counting is None:
            self._counting = self._thread.submit(self._count, now)
        if self._counted is None:
            assert self._counting is not None  # noqa: S101 - due
            counting, self._counting = self._counting, None
            self._counted = now, counting.result()
        return self._counted[1]

    def _count(self, now: datetime) -> Visits:
        since = now - timedelta(days=self._settings.visits_days)
        with transaction(self._database) as connection:
            histories = ad_histories(connection, since=since, until=now, most=COUNTED)
        visits = Visits.count(histories)
        logger.info("visits_counted", extra={"users": len(histories), "clicks": len(histories.items)})
        return visits

    def _inventory(self, live: ReleaseRow, now: datetime) -> Inventory:
        """Return what may be shown now of the index's newest revision."""
        folder = self._settings.indexes / live.index_version
        which = (live.index_version, _written_at(folder))
        if self._over is None or self._over[0] != which:
            index = AdIndex.load(folder)
            before = None if self._over is None else self._over[1]
            self._over, self._read_at = (which, _continued(before, index)), None
        inventory = self._over[1]
        if self._read_at is None or not timedelta() <= now - self._read_at < LIVE_ADS_AGE:
            with transaction(self._database) as connection:
                inventory.refresh(connection)
            self._read_at = now
        return inventory


def _continued(before: Inventory | None, index: AdIndex) -> Inventory:
    if before is not None:
        try:
            return before.over(index)
        except ReleaseMismatch:
            pass
    return Inventory(index)


def _written_at(folder: Path) -> int:
    """Return a number that changes when the artifact is written anew; 0 when it is absent."""
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
