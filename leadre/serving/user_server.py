"""The User Server: a user's retrieval list out, the user's new behaviors in. It never runs the LLM.

LEADRE §4.4.1, the latency-sensitive module. Reads fail open: whatever happens to the online store, the answer is 200
within the deadline, with an empty list marked `degraded`. Writes do not pretend: a behavior is acknowledged once
PostgreSQL has it, and a request that is sent again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from leadre.domain.behavior import Behavior, Domain
from leadre.errors import Unavailable
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.application import serving
from leadre.serving.branches import Kept
from leadre.serving.metrics import published
from leadre.serving.names import kept_ad_names
from leadre.serving.reported import Appended, behaviors_in
from leadre.serving.requests import body_of, limit_in, user_of
from leadre.serving.stored_lists import StoredLists
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors
from leadre.store.records.request_path import arpu_groups, unknown_items
from leadre.store.records.source_ids import AdNames

if TYPE_CHECKING:
    from leadre.settings import Settings
    from leadre.store.features.client import FeatureClient
    from leadre.store.features.list_reader import RetrievedRow

logger = logging.getLogger(__name__)

_READERS = 16


class UserServer:
    """What the routes do.

    Args:
        read: reads a user's list from the online store; None when the user has none. Blocks.
        names: returns how the owner names the ads, from memory; raises `Unavailable` while it does not know.
        append: writes a user's behaviors to the system of record, idempotently. Blocks.
        mark: puts a user of an ARPU group into the refresh queue and rings the doorbell. Blocks.
        read_deadline_s: seconds that a read may take before the answer goes out without a list.
        write_deadline_s: seconds that a write may take before the caller is told to try again.
        clock: the time.
    """

    def __init__(
        self,
        *,
        read: Callable[[int], RetrievedRow | None],
        names: Callable[[], AdNames],
        append: Callable[[int, Sequence[Behavior]], Appended],
        mark: Callable[[int, int], object],
        read_deadline_s: float = 0.05,
        write_deadline_s: float = 2.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._read, self._names, self._append, self._mark, self._clock = read, names, append, mark, clock
        self._read_deadline_s, self._write_deadline_s = read_deadline_s, write_deadline_s
        # Two pools: writers who wait for PostgreSQL must not keep readers from Redis.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._writers = ThreadPoolExecutor(_READERS, thread_name_prefix="writer")
        self.counters: Counter[str] = Counter()

    async def ads(self, request: Request) -> JSONResponse:
        """Answer `GET /v1/users/{user_id}/ads?limit=`."""
        (user_id, source_id), limit = user_of(request), limit_in(request.query_params.get("limit"))
        self.counters["reads"] += 1
        loop = asyncio.get_running_loop()
        try:
            names = self._names()
            found = await asyncio.wait_for(
                loop.run_in_executor(self._readers, self._read, user_id), self._read_deadline_s
            )
        except Exception as error:  # noqa: BLE001 - fail open, whatever it is
            self.counters["degraded"] += 1
            logger.warning("read_degraded", extra={"error": type(error).__name__})
            return JSONResponse({"user_id": source_id, "ads": [], "degraded": True})
        if found is None:
            self.counters["empty"] += 1
            return JSONResponse({"user_id": source_id, "ads": [], "degraded": False})
        beams = zip(names.of(found.ad_ids), found.sids, found.log_probabilities, strict=True)
        ads = [
            {"ad_id": name, "sid": sid, "log_probability": log_probability}
            for name, sid, log_probability in beams
            if name is not None
        ]
        if len(ads) < len(found.ad_ids):
            self.counters["unnamed"] += len(found.ad_ids) - len(ads)  # left out: a derived number is nobody's id
        return JSONResponse(
            {
                "user_id": source_id,
                "release": found.release,
                "index_version": found.index_version,
                "generated_at": found.generated_at.isoformat(),
                "ads": ads[:limit],
                "degraded": False,
            }
        )

    async def report(self, request: Request) -> JSONResponse:
        """Answer `POST /v1/users/{user_id}/behaviors`: 202 once PostgreSQL has them, 503 when it does not answer."""
        user_id, _ = user_of(request)
        behaviors = behaviors_in(await body_of(request), user_id=user_id, now=self._clock())
        loop = asyncio.get_running_loop()
        try:
            appended = await asyncio.wait_for(
                loop.run_in_executor(self._writers, self._append, user_id, behaviors), self._write_deadline_s
            )
        except (Unavailable, TimeoutError) as error:
            self.counters["refused"] += 1
            logger.warning("write_refused", extra={"error": type(error).__name__})
            return JSONResponse(
                {"error": "the system of record does not answer; send the request again"},
                status_code=503,
                headers={"Retry-After": "1"},
            )
        queued = await self._queued(user_id, appended.group)
        unknown = {
            "unknown_ads": appended.unknown_ads,
            "unknown_content_items": appended.unknown_content_items,
        }
        self.counters.update({"behaviors": len(behaviors)}, **unknown)
        return JSONResponse({"accepted": len(behaviors), "queued": queued, **unknown}, status_code=202)

    async def _queued(self, user_id: int, group: int) -> bool:
        loop = asyncio.get_running_loop()
        try:
            marking = loop.run_in_executor(self._writers, self._mark, user_id, group)
            await asyncio.wait_for(marking, self._read_deadline_s)
        except Exception as error:  # noqa: BLE001 - the behaviors are safe; the reconciler marks the user later
            self.counters["unqueued"] += 1
            logger.warning("mark_failed", extra={"error": type(error).__name__})
            return False
        return True


def create_app(settings: Settings) -> Starlette:
    """Return the ASGI application over the online store, PostgreSQL and the refresh queue.

    Raises:
        ConfigError: the database URL is not one of PostgreSQL.
    """
    database = connect(
        settings.database_url, application_name="leadre user-server", statement_timeout_s=2, lock_timeout_s=1
    )
    queue = RefreshQueue.connect(settings.redis_url, timeout_s=0.5)

    def open_features() -> FeatureClient:
        from leadre.store.features.client import FeatureClient  # takes seconds

        return FeatureClient(settings.feature_repo, settings.feast_environment())

    def append(user_id: int, behaviors: Sequence[Behavior]) -> Appended:
        with transaction(database) as connection:
            append_behaviors(connection, behaviors, arrived_at=datetime.now(UTC))
            unknown = unknown_items(connection, behaviors)
            return Appended(
                group=arpu_groups(connection, [user_id])[0],
                unknown_ads=unknown[Domain.AD],
                unknown_content_items=unknown[Domain.CONTENT],
            )

    def mark(user_id: int, group: int) -> None:
        queue.mark([user_id], groups=[group])

    lists = StoredLists(open_features, ttl_s=settings.list_ttl_s, clock=lambda: datetime.now(UTC))
    opened = Kept(lists.open, what="the stored lists", every_s=30)
    names = kept_ad_names(settings.database_url)
    server = UserServer(read=lists, names=names, append=append, mark=mark)
    redis = Redis.from_url(settings.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5)
    return application(server, background=[names.keep, opened.keep], gauges=partial(published, redis))


def application(
    server: UserServer,
    *,
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    gauges: Callable[[], Mapping[str, str]] = dict,
) -> Starlette:
    """Serve a user server's routes, with coroutines that run beside them and gauges for Prometheus."""
    routes = [
        Route("/v1/users/{user_id:source_id}/ads", server.ads),
        Route("/v1/users/{user_id:source_id}/behaviors", server.report, methods=["POST"]),
    ]
    return serving("user-server", routes, counters=server.counters, background=background, gauges=gauges)
