"""Backfill: lists as of instants of the past, written into the retrieval log as if a worker had been there.

LEADRE §4.4.1, §5.3. Contexts hold what happened before the instant, ads earned what they had earned by then, and the
release has seen neither the instant nor what followed. Any number of processes work off what `plan` notes
(leadre.store.past.shards); a batch that a killed one had not finished is made again, and no list is written twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import Lists, pack
from leadre.errors import ConfigError, LeadreError, Unavailable
from leadre.indexing.ad_index import AdIndex
from leadre.logs import place_of
from leadre.pipelines.dataset.past import PastRelease, contexts_before, newest_before, past_releases
from leadre.pipelines.refresh import read_release
from leadre.retrieval.inventory import Inventory
from leadre.retrieval.loaded_release import LoadedRelease
from leadre.settings import Settings
from leadre.store.features import retrieval_log
from leadre.store.features.list_writer import derive_lists
from leadre.store.past import shards
from leadre.store.past.inventory import read_past_inventory
from leadre.store.past.shards import Shard, Waiting
from leadre.store.records.database import connect, transaction
from leadre.store.records.ecpm import EcpmLog, read_ecpm, read_ecpm_log
from leadre.store.release.records import named_release

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

logger = logging.getLogger(__name__)

BATCH = 64
"""Users decoded at once (ours); of the bits of a score, the last ones may depend on who is decoded beside."""


Chosen = Sequence[tuple[datetime, PastRelease]]
"""Instants, each with the release that decodes it."""


def choose_existing(
    database: Database, instants: Sequence[datetime], *, release: str | None = None
) -> list[tuple[datetime, PastRelease]]:
    """Return each instant with the newest release that has not seen it; an instant that all have seen is left out.

    Args:
        database: the system of record.
        instants: when lists are wanted.
        release: decode all with this one.

    Raises:
        ConfigError: no such release.
        ReleaseMismatch: it has seen one of the instants.
        Unavailable: the database does not answer.
    """
    with transaction(database) as connection:
        releases = past_releases(connection)
        if release is not None:
            named_release(connection, release)
    if release is not None:
        releases = [known for known in releases if known.row.release == release]
        if not releases:
            raise ConfigError(
                f"release {release!r} does not say what it has seen, or is not whole on disk: name another one, or none"
            )
        for at in instants:
            releases[0].check(at)
    chosen = [(at, newest_before(releases, at)) for at in instants]
    return [(at, found) for at, found in chosen if found is not None]


def plan(database: Database, chosen: Chosen, *, user_ids: NDArray[np.int64]) -> Waiting:
    """Note what is to be made, in place of what an earlier plan left undone; workers of the backfill begin at once.

    Args:
        database: the system of record.
        chosen: which release decodes which instant.
        user_ids: whose lists, int64[U].

    Returns:
        What waits: nothing that an earlier backfill has finished.

    Raises:
        ReleaseMismatch: a release has seen its instant.
        Unavailable: the database does not answer.
    """
    for at, release in chosen:
        release.check(at)
    with transaction(database) as connection:
        return shards.plan(connection, [(at, release.row.release) for at, release in chosen], user_ids=user_ids)


class PastDecoder:
    """Makes the lists of shards. Holds one release at a time: shards come by instant, so each is loaded once.

    Args:
        settings: where the artifacts are, which engine, how wide the beam is.
        database: the system of record.
        batch: users decoded at once.
    """

    def __init__(self, settings: Settings, *, database: Database, batch: int = BATCH) -> None:
        self._settings, self._database, self._batch = settings, database, batch
        self._releases: dict[str, PastRelease] = {}
        self._loaded: tuple[LoadedRelease, Inventory] | None = None
        self._earned: tuple[datetime, EcpmLog] | None = None

    def work_off(
        self,
        *,
        made: Callable[[int], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        failures: Literal["raise", "note"] = "raise",
    ) -> int:
        """Make what waits until nothing does; return how many lists were made.

        Args:
            made: called after every batch with its number of lists.
            should_stop: asked between batches.
            failures: whether the error of a shard that cannot be done ends the work, or is noted beside the shard.

        Raises:
            Unavailable: PostgreSQL does not answer; what was begun is made again.
            LeadreError: as `lists_of`.
        """
        total = 0
        while not should_stop():
            with shards.taken(self._database) as shard:
                if shard is None:
                    break
                try:
                    total += self._make(shard, made=made, should_stop=should_stop)
                except Unavailable:
                    raise
                except Exception as error:
                    if failures == "raise":
                        raise
                    # Other messages than ours may quote personal data.
                    said = str(error) if isinstance(error, LeadreError) else place_of(error)
                    logger.error("backfill_failed", extra={"release": shard.release, "problem": said})
                    with transaction(self._database) as connection:
                        shards.fail(connection, shard, problem=said)
        return total

    def seconds_each(self, chosen: Chosen, user_ids: NDArray[np.int64]) -> float:
        """Make one batch of lists without writing it; return the seconds a list, without loading the release."""
        at, release = chosen[-1]  # where histories are longest
        some = tuple(user_ids[: self._batch].tolist())
        self._prepare(Shard(event_at=at, release=release.row.release, users_hash=0, user_ids=some))
        began = time.perf_counter()
        self._derive(at, some)
        return (time.perf_counter() - began) / max(1, len(some))

    def _make(self, shard: Shard, *, made: Callable[[int], None], should_stop: Callable[[], bool]) -> int:
        missing = self._prepare(shard)
        for start in range(0, len(missing), self._batch):
            if should_stop():
                return start
            batch = missing[start : start + self._batch]
            self._write(shard, batch)
            made(len(batch))
        with transaction(self._database) as connection:
            shards.finish(connection, shard)
        return len(missing)

    def _prepare(self, shard: Shard) -> list[int]:
        """Load what the shard needs; return its users who have no list yet."""
        if shard.release not in self._releases:
            with transaction(self._database) as connection:
                self._releases = {known.row.release: known for known in past_releases(connection)}
        if shard.release not in self._releases:
            raise ConfigError(
                f"release {shard.release!r} is not on this machine: share LEADRE_HOME between the workers"
            )
        release = self._releases[shard.release]
        release.check(shard.event_at)
        if self._loaded is None or self._loaded[0].release != shard.release:
            self._loaded = None  # two models need not fit into memory together
            index = AdIndex.load(self._settings.indexes / release.row.index_version)
            inventory = Inventory(index)
            with transaction(self._database) as connection:
                inventory.apply(read_past_inventory(connection))
            self._loaded = read_release(self._settings, release.row, index=index), inventory
        with transaction(self._database) as connection:
            if self._earned is None or self._earned[0] != shard.event_at:
                self._earned = shard.event_at, read_ecpm_log(connection, before=shard.event_at)
            return shards.without_list(connection, shard)

    def _write(self, shard: Shard, user_ids: Sequence[int]) -> None:
        lists = self._derive(shard.event_at, user_ids)
        with transaction(self._database) as connection:
            retrieval_log.append(connection, np.array(user_ids, np.int64), lists, pack(lists))

    def _derive(self, at: datetime, user_ids: Sequence[int]) -> Lists:
        assert self._loaded is not None  # noqa: S101 - by `_prepare`
        assert self._earned is not None  # noqa: S101
        loaded, inventory = self._loaded
        with transaction(self._database) as connection:
            contexts = contexts_before(connection, user_ids, at=at, recipe=loaded.recipe.prompt)
        lists = loaded.lists(contexts, inventory=inventory, beam_width=self._settings.beam_width, now=at)
        log = self._earned[1]

        def ecpm_of(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            ad_ids = loaded.index.ad_ids[rows].tolist()
            with transaction(self._database) as connection:
                known = read_ecpm(connection, list(set(ad_ids)), log=log)
            return np.array([known.get(ad_id, 0.0) for ad_id in ad_ids])

        return derive_lists(lists, index=loaded.index, ecpm_of=ecpm_of)


def work_off_here(settings: Settings, *, batch: int = BATCH) -> int:
    """Work off what waits in a process of its own; return how many lists it made. For process pools."""
    database = connect(settings.database_url, application_name="leadre backfill")
    try:
        return PastDecoder(settings, database=database, batch=batch).work_off()
    finally:
        database.dispose()


def instants_between(since: datetime, until: datetime, *, every: timedelta) -> list[datetime]:
    """Return the instants from `since` on, `every` apart, before `until`.

    Raises:
        ConfigError: there are none.
    """
    count = -((since - until) // every)
    if count < 1:
        raise ConfigError(f"no instant lies from {since.isoformat()} until before {until.isoformat()}")
    return [since + every * n for n in range(count)]
