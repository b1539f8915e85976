"""Ranking features for rankers that cannot wait: one round trip to Redis, the rest in process. LEADRE §5.3.

Reads the users' list records out of Feast's own online layout and derives against the index in memory: the values are,
bit for bit, those of the service `ranker_features_v1`, without Feast in the process. Imports in milliseconds; no torch.
Redis silent or slow: neutral features within the deadline, and a counter; never an error.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from leadre.artifacts import MANIFEST
from leadre.derivation import LIST_TTL_S, unpack
from leadre.derivation.item_match import match
from leadre.errors import LeadreError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.ad_table import AdTable
from leadre.store.features.ranking.asked import Asked, Ids
from leadre.store.features.ranking.records import RecordReader, Topology
from leadre.store.features.ranking.rows import RankingRows

if TYPE_CHECKING:
    from leadre.settings import Settings

_ROWS_TO_SPREAD = 16_384  # fewer are derived sooner by one thread

logger = logging.getLogger(__name__)


class RankingFeatures:
    """Reads ranking features. One a process, for all its threads and event loops.

    Args:
        redis_url: of the online store, `redis://:password@host:port/0`.
        index: the folder of the index, or a function that says where the live release's is; None when none is live. It
            is looked at in the beginning and every `poll_s` seconds.
        project: of feature_store.yaml.
        deadline_s: how long Redis may take (ours).
        ttl_s: the age up to which a list counts (ours).
        poll_s: how often a newer index is looked for (ours); None: only when `refresh` is called.
        threads: how many share a read of many rows; all cores unless given (ours).
        topology: whether the URL is of one server or of a node of a Redis Cluster.

    Raises:
        ArtifactIncomplete: the folder holds no index.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        index: Path | Callable[[], Path | None],
        project: str = "leadre",
        deadline_s: float = 0.02,
        ttl_s: float = LIST_TTL_S,
        poll_s: float | None = 5.0,
        threads: int | None = None,
        topology: Topology = "single",
    ) -> None:
        self._ttl_s = ttl_s
        self._folder = (lambda: index) if isinstance(index, Path) else index
        self._reader = RecordReader(redis_url, project=project, deadline_s=deadline_s, topology=topology)
        self._counts: Counter[str] = Counter()
        self._counting, self._refreshing = threading.Lock(), threading.Lock()
        self._opened: tuple[Path, int] | None = None
        self._table = AdTable.empty()
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix="leadre-ranking")
        _keep_freed_memory()
        self.refresh()
        self._reader.read(np.zeros(1, np.int64))  # warm: the first read opens the connection
        if poll_s is not None:
            threading.Thread(target=self._follow, args=(poll_s,), name="leadre-index", daemon=True).start()

    @classmethod
    def of(cls, settings: Settings, *, deadline_s: float = 0.02) -> RankingFeatures:
        """Read where the settings say, and follow the live release by asking PostgreSQL.

        Raises:
            Unavailable: PostgreSQL does not answer.
            ArtifactIncomplete: the live release's index is not in this machine's `LEADRE_HOME`.
        """
        from sqlalchemy import select

        from leadre.store.records.database import connect, transaction
        from leadre.store.records.tables import releases

        database = connect(settings.database_url, application_name="leadre ranking")

        def live_index() -> Path | None:
            with transaction(database) as connection:
                version = connection.scalar(select(releases.c.index_version).where(releases.c.status == "live"))
            database.dispose()  # asked seldom: no connection is kept
            return None if version is None else settings.indexes / version

        topology: Topology = "single"
        url = settings.redis_url
        if settings.redis_cluster:
            url, topology = _cluster_url(settings.redis_cluster), "cluster"
        return cls(url, index=live_index, deadline_s=deadline_s, ttl_s=settings.list_ttl_s, topology=topology)

    def close(self) -> None:
        """Stop following the index, and close the connections of threads."""
        self._closed.set()
        self._reader.close()
        self._threads.shutdown()

    async def aclose(self) -> None:
        """Close the connections of this event loop; `close` does the rest."""
        await self._reader.aclose()

    @property
    def counters(self) -> dict[str, int]:
        """What happened so far.

        `reads`, `rows`; `unanswered` reads, whose features are neutral; `broken_records` among the lists read;
        `unknown_ads`, which the index does not hold; `indexes` opened, and `index_failures`, after which the former
        index stays.
        """
        with self._counting:
            return dict(self._counts)

    def read(self, user_ids: Ids, ad_ids: Sequence[Ids] | NDArray[np.int64], *, now: datetime) -> RankingRows:
        """Return the ranking features of U users with the target ads of each. Never waits longer than the deadline.

        Args:
            user_ids: U users, as their owner names them: numbers or texts; int64 arrays are fastest.
            ad_ids: the target ads of each user, U sequences or an array [U, C].
            now: when the ranker asks, with a zone.

        Raises:
            InvalidInput: what is given is no id, or other than U sequences, or a time without a zone.
        """
        asked = Asked.of(user_ids, ad_ids, now=now)
        return self._derive(asked, self._reader.read(asked.user_ids))

    async def aread(self, user_ids: Ids, ad_ids: Sequence[Ids] | NDArray[np.int64], *, now: datetime) -> RankingRows:
        """Do as `read` does, without keeping the event loop from others while Redis is asked."""
        asked = Asked.of(user_ids, ad_ids, now=now)
        return self._derive(asked, await self._reader.aread(asked.user_ids))

    def refresh(self) -> bool:
        """Look for a newer index and go over to it; say whether there was one. Reads under way keep theirs.

        Raises:
            ArtifactIncomplete: there is none at the place; the former stays in use.
            Unavailable: PostgreSQL does not say which is live.
        """
        with self._refreshing:
            folder = self._folder()
            if folder is None:
                opened, table = None, AdTable.empty()
            else:
                resolved = folder.resolve()  # a link moves with every revision
                manifest = resolved / MANIFEST
                opened = (resolved, manifest.stat().st_mtime_ns if manifest.is_file() else 0)
                if opened != self._opened:
                    table = AdTable.of(AdIndex.load(resolved))
            if opened == self._opened:
                return False
            self._table, self._opened = table, opened
        self._count(indexes=1)
        return True

    def _follow(self, poll_s: float) -> None:
        while not self._closed.wait(poll_s):
            try:
                self.refresh()
            except (LeadreError, OSError) as error:
                self._count(index_failures=1)
                logger.warning("index_not_read", extra={"problem": str(error)})  # the one before stays

    def _derive(self, asked: Asked, records: list[bytes | None] | None) -> RankingRows:
        table = self._table  # one for the whole read, whatever is opened meanwhile
        values = [None] * len(asked.user_ids) if records is None else records
        lists = unpack(values)
        places = table.rows(asked.ad_ids)
        scores = match(
            lists,
            table.targets,
            list_of_row=asked.user_of_row,
            ad_of_row=asked.ad_ids,
            target_of_row=places,
            request_time_s=asked.request_time_s,
            ttl_s=self._ttl_s,
            over=map if len(places) < _ROWS_TO_SPREAD else self._threads.map,
        )
        self._count(
            reads=1,
            rows=len(places),
            unanswered=int(records is None),
            broken_records=len(values) - values.count(None) - int(lists.present.sum()),
            unknown_ads=int((places < 0).sum()),
        )
        return RankingRows(
            user_of_row=asked.user_of_row,
            ad_ids=asked.ad_ids,
            lists=lists,
            item_side=scores,
            request_time_s=asked.request_time_s,
            ttl_s=self._ttl_s,
            answered=records is not None,
            index_version=table.version,
        )

    def _count(self, **more: int) -> None:
        with self._counting:
            for name, number in more.items():
                self._counts[name] += number


def _cluster_url(nodes: str) -> str:
    """Return the URL of the first node of `host:port,host:port,password=...`."""
    node, *rest = nodes.split(",")
    options = dict(part.partition("=")[::2] for part in rest if "=" in part)
    login = f"{quote(options.get('username', ''))}:{quote(options['password'])}@" if "password" in options else ""
    return f"{'rediss' if options.get('ssl') == 'true' else 'redis'}://{login}{node}"


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of giving it back to the system, which costs a read a third of its time.

    It raises its thresholds to the largest block that was freed; this one is never touched.
    """
    untouched = np.empty(2**21 + 2**10)
    del untouched
