"""What the pages look through: the database, the queue, the index, and in the background the feature store and the LLM.

LEADRE §4.4.1. The live release is loaded once and followed: a page never waits for a model to load, it says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from leadre.artifacts import MANIFEST
from leadre.errors import ConfigError, LeadreError, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.http.messages import Answer, Request
from leadre.settings import Settings
from leadre.store.records.database import connect, session
from leadre.store.release.records import live_release, newest_index

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

    from leadre.pipelines.refresh import LiveRetriever
    from leadre.retrieval.retriever import Retriever
    from leadre.store.features.client import FeatureClient

logger = logging.getLogger(__name__)

FOLLOW_S = 5.0
"""Seconds between two looks at which release is live (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveIndex:
    """The index that pages show: the live release's, or the newest where none is live (`release` is then None)."""

    release: str | None
    index: AdIndex


class Sight:
    """What the pages of one process share.

    Args:
        settings: where things run.
        clock: the instant that pages act as of.

    Attributes:
        database: the system of record.
        queue: who waits for a new list.
        trouble: why there is no model in memory; None while there is one.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime]) -> None:
        self.settings, self.clock = settings, clock
        self.database: Database = connect(settings.database_url, application_name="leadre console")
        self.queue = RefreshQueue.connect(settings.redis_url)
        self.trouble: str | None = "the feature store and the live release are being loaded; this takes a moment"
        self._features: FeatureClient | None = None
        self._live: LiveRetriever | None = None
        self._retriever: Retriever | None = None
        self._decoding = Lock()
        self._index: tuple[tuple[str, int], AdIndex] | None = None

    def close(self) -> None:
        """Close what was opened."""
        if self._features is not None:
            self._features.close()
        self.database.dispose()

    @property
    def features(self) -> FeatureClient:
        """The feature store.

        Raises:
            Unavailable: it is not open yet.
        """
        if self._features is None:
            raise Unavailable(self.trouble or "the feature store is not open yet; load the page again in a moment")
        return self._features

    @property
    def retriever(self) -> Retriever | None:
        """The live release's, for what needs no decoding; None while there is none."""
        return self._retriever

    @contextmanager
    def decoding(self) -> Iterator[Retriever]:
        """Give the live release's retriever to one thread at a time.

        Raises:
            Unavailable: it is not in memory.
        """
        with self._decoding:
            if self._retriever is None:
                raise Unavailable(self.trouble or "no release is in memory; load the page again in a moment")
            yield self._retriever

    def index(self) -> LiveIndex:
        """Return the index to show, opened once a revision.

        Raises:
            ConfigError: there is none.
            ArtifactIncomplete: its files are damaged.
            Unavailable: PostgreSQL does not answer.
        """
        with session(self.database) as connection:
            live = live_release(connection)
            version = live.index_version if live else newest_index(connection)
        if version is None:
            raise ConfigError("there is no index yet: `leadre index build` makes one")
        folder = self.settings.indexes / version
        manifest = folder / MANIFEST
        which = version, manifest.stat().st_mtime_ns if manifest.exists() else 0
        opened = self._index
        if opened is None or opened[0] != which:
            self._index = opened = which, AdIndex.load(folder)
        return LiveIndex(release=live.release if live else None, index=opened[1])

    async def follow(self) -> None:
        """Load the live release and what comes after it, for as long as the console runs."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(FOLLOW_S)

    def look(self) -> None:
        """Bring the live release into memory unless it is there; `trouble` says what is in the way."""
        try:
            if self._live is None:
                # torch, transformers and Feast take seconds to import: the first pages do not wait for them
                from leadre.pipelines.refresh import LiveRetriever
                from leadre.store.features.client import FeatureClient

                self._features = self._features or FeatureClient(
                    self.settings.feature_repo, environment=self.settings.feast_environment()
                )
                self._live = LiveRetriever(self.settings, database=self.database, features=self._features)
            with self._decoding:
                self._retriever = self._live.current()
            self.trouble = None
        except LeadreError as error:
            self.trouble, self._retriever = str(error), None
        except Exception as error:  # noqa: BLE001 - the other pages are worth showing without it
            logger.warning("release_not_loaded", extra={"error": type(error).__name__})
            self.trouble, self._retriever = f"loading the live release ended in {type(error).__name__}", None


Show = Callable[[Sight, Request], Answer]
"""Makes a page. It may block."""
