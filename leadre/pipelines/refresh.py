"""Refresh: users to stored retrieval lists with the release that is live. What the drain calls for each batch.

LEADRE §4.4.1, the latency-tolerant module; §5.1 (index and model are updated daily, and worked with from then on).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import MANIFEST
from leadre.decoding.engine import Engine
from leadre.domain.retrieval import RetrievalList
from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.engine import engine_of_release
from leadre.recipe import load_recipe
from leadre.retrieval.inventory import Inventory, added_rows
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.retrieval.retriever import Retriever
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, session, transaction
from leadre.store.release import records as releases
from leadre.training.learner.release_folder import load_prompt_encoder, seen_of

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a batch waits for a new revision of the index before it goes on with the one in memory (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Revision:
    """Another revision of the index in memory, ready to be gone over to.

    `added` are its new rows; None when it does not continue the one before (an index that was built anew).
    """

    index: AdIndex
    engine: Engine
    added: NDArray[np.bool_] | None


Progress = Callable[[str, int, int | None], None]
_Which = tuple[str, int]  # a release, and a number that changes with its index's revision


class LiveRetriever:
    """The live release's retriever. A promotion, a rollback or new ads in the index take effect with the next batch.

    A release is loaded once. When only its index has a new revision, the model stays where it is; the revision is made
    ready in a thread of its own, and while that takes longer than `PATIENCE_S` batches go on with the one before. A
    batch that is under way ends with the revision it began with.

    Args:
        settings: where the artifacts are and how wide the beam is.
        database: the system of record.
        features: the feature store.
    """

    def __init__(self, settings: Settings, *, database: Database, features: FeatureClient) -> None:
        self._settings, self._database, self._features = settings, database, features
        self._model: LoadedRelease | None = None
        self._epoch = 0  # of the release in memory, by its latest promotion
        self._loaded: tuple[_Which, Retriever] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index-revision")
        self._coming: tuple[_Which, Future[_Revision]] | None = None

    def refresh(self, user_ids: Sequence[int], *, now: datetime) -> list[RetrievalList]:
        """Retrieve for users with the release that is live now. See `Retriever.refresh`.

        Raises:
            ConfigError: no release is live.
            ArtifactIncomplete, ReleaseMismatch: the live release cannot be loaded.
            Unavailable: a server does not answer.
        """
        return self.ready()(user_ids, now=now)

    def ready(self) -> Callable[..., list[RetrievalList]]:
        """Return `Retriever.refresh` of the release that is live now, for a batch. Raises as `refresh`."""
        return partial(self.current().refresh, release_epoch=self._epoch)

    def current(self) -> Retriever:
        """Return the live release's retriever over its index's newest revision that is ready. Raises as `refresh`."""
        with session(self._database) as connection:
            live = releases.named_release(connection)
        folder = self._settings.indexes / live.index_version
        self._epoch = live.sequence
        which = (live.release, _written_at(folder))
        if self._loaded is None or self._model is None or self._model.release != live.release:
            self._model = self._loaded = self._coming = None  # two models need not fit into memory together
            index = AdIndex.load(folder)
            self._model = read_release(self._settings, live, index=index)
            self._loaded = which, self._retriever(self._model)
            self._log("release_loaded", index)
        elif self._loaded[0] != which:
            self._go_over(which, folder, loaded=self._loaded[1], model=self._model)
        return self._loaded[1]

    def _go_over(self, which: _Which, folder: Path, *, loaded: Retriever, model: LoadedRelease) -> None:
        """Go over to the index's newest revision, if it is ready soon."""
        if self._coming is None or self._coming[0] != which:
            self._coming = which, self._thread.submit(_make_ready, folder, before=loaded.index, engine=model.engine)
        try:
            ready = self._coming[1].result(timeout=PATIENCE_S)
        except TimeoutError:
            return
        except BaseException:
            self._coming = None  # the next batch tries again
            raise
        self._model, self._coming = replace(model, engine=ready.engine, index=ready.index), None
        inventory = None if ready.added is None else loaded.inventory.over(ready.index, added=ready.added)
        self._loaded = which, self._retriever(self._model, inventory=inventory)
        self._log("index_swapped", ready.index)

    def _retriever(self, model: LoadedRelease, *, inventory: Inventory | None = None) -> Retriever:
        return Retriever(
            database=self._database,
            features=self._features,
            engine=model.engine,
            encoder=model.encoder,
            index=model.index,
            recipe=model.recipe,
            release=model.release,
            beam_width=self._settings.beam_width,
            seen=model.seen,
            inventory=inventory,
            most_tokens=self._settings.refresh_tokens,
        )

    def _log(self, what: str, index: AdIndex) -> None:
        release = self._model.release if self._model else None
        logger.info(what, extra={"release": release, "index_version": index.version, "revision": index.revision})


def read_release(settings: Settings, row: releases.ReleaseRow, *, index: AdIndex) -> LoadedRelease:
    """Load a release's model over its index, with the engine that the settings name.

    Raises:
        ArtifactIncomplete, ReleaseMismatch, ConfigError: as `leadre.decoding.load.load_engine`.
    """
    folder = Path(row.uri)
    return LoadedRelease(
        release=row.release,
        engine=engine_of_release(settings, folder, index=index),
        encoder=load_prompt_encoder(folder),
        index=index,
        recipe=load_recipe(folder / "recipe.toml"),
        seen=seen_of(folder),
    )


def _make_ready(folder: Path, *, before: AdIndex, engine: Engine) -> _Revision:
    index = AdIndex.load(folder)
    try:
        added = added_rows(before, index)
    except ReleaseMismatch:
        added = None
    return _Revision(index=index, engine=engine.over(index), added=added)


def refresh_users(
    settings: Settings, user_ids: Sequence[int], *, now: datetime, progress: Progress | None = None
) -> list[RetrievalList]:
    """Refresh users in this process, without queue and worker. For the command line and for debugging.

    Args:
        settings: where things run.
        user_ids: whom.
        now: the instant.
        progress: called with what is done, how much of it and of how much, once it is known that a release is live.

    Raises:
        ConfigError: no release is live.
        Unavailable: a server does not answer.
    """
    database = connect(settings.database_url, application_name="leadre refresh")
    try:
        with transaction(database) as connection:
            releases.named_release(connection)
        report = progress or (lambda *_: None)
        report("release", 0, 1)
        features = FeatureClient(settings.feature_repo, settings.feast_environment())
        retriever = LiveRetriever(settings, database=database, features=features)
        retriever.current()
        report("release", 1, 1)
        found: list[RetrievalList] = []
        for start in range(0, len(user_ids), settings.refresh_batch):
            report("users", start, len(user_ids))
            found += retriever.refresh(user_ids[start : start + settings.refresh_batch], now=now)
        report("users", len(user_ids), len(user_ids))
        return found
    finally:
        database.dispose()


def _written_at(folder: Path) -> int:
    """Return a number that changes when the artifact is written anew; 0 when it is absent."""
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
