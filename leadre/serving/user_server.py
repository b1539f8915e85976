"""The User Server: a user's retrieval list out, the user's new behaviors in. It never runs the LLM.

LEADRE §4.4.1, the latency-sensitive module. Reads fail open: whatever happens to the online store, the answer is 200
within the deadline, with an empty list marked `degraded`. Writes do not pretend: a behavior is acknowledged once
PostgreSQL has it, and a request that is sent again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import MAX_ID
from leadre.errors import InvalidInput, Unavailable
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.branches import Kept, beside
from leadre.serving.requests import ERROR_ANSWERS, body_of, limit_of, user_id_of
from leadre.serving.stored_lists import StoredLists
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import append_behaviors
from leadre.store.records.request_path import arpu_groups

if TYPE_CHECKING:
    from leadre.settings import Settings
    from leadre.store.features.client import FeatureClient, RetrievedRow

logger = logging.getLogger(__name__)

MAX_BEHAVIORS = 100
CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead of ours a caller's clock may be."""
_READERS = 16
_ACTIONS = {
    Domain.AD: {Action.IMPRESSION, Action.CLICK, Action.CONVERSION},
    Domain.CONTENT: {Action.WATCH, Action.SEARCH, Action.SKIP},
}


class NewBehavior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A behavior as a request writes it; `occurred_at` is RFC 3339 with its time zone."""

    domain: Domain
    action: Action
    item_id: Annotated[int, Meta(ge=0, le=MAX_ID)]
    occurred_at: Annotated[datetime, Meta(tz=True)]
    ordinal: Annotated[int, Meta(ge=0, le=MAX_ID)] = 0


class NewBehaviors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request that reports behaviors."""

    behaviors: Annotated[list[NewBehavior], Meta(min_length=1, max_length=MAX_BEHAVIORS)]


_DECODER = msgspec.json.Decoder(NewBehaviors)


class UserServer:
    """What the routes do.

    Args:
        read: reads a user's list from the online store; None when the user has none. Blocks.
        append: writes a user's behaviors to the system of record, idempotently; returns the user's ARPU group. Blocks.
        mark: puts a user of an ARPU group into the refresh queue and rings the doorbell. Blocks.
        read_deadline_s: seconds that a read may take before the answer goes out without a list.
        write_deadline_s: seconds that a write may take before the caller is told to try again.
        clock: the time.
    """

    def __init__(
        self,
        *,
        read: Callable[[int], RetrievedRow | None],
        append: Callable[[int, Sequence[Behavior]], int],
        mark: Callable[[int, int], object],
        read_deadline_s: float = 0.05,
        write_deadline_s: float = 2.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._read, self._append, self._mark, self._clock = read, append, mark, clock
        self._read_deadline_s, self._write_deadline_s = read_deadline_s, write_deadline_s
        # Two pools: writers who wait for PostgreSQL must not keep readers from Redis.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._writers = ThreadPoolExecutor(_READERS, thread_name_prefix="writer")
        self.counters: Counter[str] = Counter()

    async def ads(self, request: Request) -> JSONResponse:
        """Answer `GET /v1/users/{user_id}/ads?limit=`."""
        user_id, limit = user_id_of(request), limit_of(request)
        self.counters["reads"] += 1
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(
                loop.run_in_executor(self._readers, self._read, user_id), self._read_deadline_s
            )
        except Exception as error:  # noqa: BLE001 - fail open, whatever it is
            self.counters["degraded"] += 1
            logger.warning("read_degraded", extra={"error": type(error).__name__})
            return JSONResponse({"user_id": user_id, "ads": [], "degraded": True})
        if found is None:
            self.counters["empty"] += 1
            return JSONResponse({"user_id": user_id, "ads": [], "degraded": False})
        beams = zip(found.ad_ids, found.sids, found.log_probabilities, strict=True)
        return JSONResponse(
            {
                "user_id": user_id,
                "release": found.release,
                "index_version": found.index_version,
                "generated_at": found.generated_at.isoformat(),
                "ads": [
                    {"ad_id": ad_id, "sid": sid, "log_probability": log_probability}
                    for ad_id, sid, log_probability in islice(beams, limit)
                ],
                "degraded": False,
            }
        )

    async def report(self, request: Request) -> JSONResponse:
        """Answer `POST /v1/users/{user_id}/behaviors`: 202 once PostgreSQL has them, 503 when it does not answer."""
        user_id = user_id_of(request)
        behaviors = self._decoded(user_id, await body_of(request))
        loop = asyncio.get_running_loop()
        try:
            group = await asyncio.wait_for(
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
        queued = await self._queued(user_id, group)
        self.counters["behaviors"] += len(behaviors)
        return JSONResponse({"accepted": len(behaviors), "queued": queued}, status_code=202)

    async def healthz(self, _: Request) -> JSONResponse:
        """Answer `GET /healthz`: the process is up; reads fail open, so no server has to be."""
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> JSONResponse:
        """Answer `GET /metrics-lite`: counters since the start."""
        return JSONResponse(dict(self.counters))

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

    def _decoded(self, user_id: int, body: bytes) -> list[Behavior]:
        try:
            new = _DECODER.decode(body)
        except msgspec.DecodeError as error:
            raise InvalidInput(str(error)) from None
        latest = self._clock() + CLOCK_SKEW
        for row, behavior in enumerate(new.behaviors, 1):
            if behavior.action not in _ACTIONS[behavior.domain]:
                raise InvalidInput(f"not an action of the {behavior.domain} domain", row=row, column="action")
            if behavior.occurred_at > latest:
                raise InvalidInput("lies in the future; is the clock right?", row=row, column="occurred_at")
        return [
            Behavior(
                user_id=user_id,
                domain=behavior.domain,
                action=behavior.action,
                item_id=behavior.item_id,
                occurred_at=behavior.occurred_at,
                ordinal=behavior.ordinal,
            )
            for behavior in new.behaviors
        ]


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

    def append(user_id: int, behaviors: Sequence[Behavior]) -> int:
        with transaction(database) as connection:
            append_behaviors(connection, behaviors)
            return arpu_groups(connection, [user_id])[0]

    def mark(user_id: int, group: int) -> None:
        queue.mark([user_id], groups=[group])

    lists = StoredLists(open_features, ttl_s=settings.list_ttl_s, clock=lambda: datetime.now(UTC))
    opened = Kept[object](lists.open, initial=None, every_s=30)
    return application(UserServer(read=lists, append=append, mark=mark), background=[opened.keep])


def application(server: UserServer, *, background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()) -> Starlette:
    """Serve a user server's routes, with coroutines that run beside them."""
    return Starlette(
        lifespan=beside(background),
        routes=[
            Route("/v1/users/{user_id}/ads", server.ads),
            Route("/v1/users/{user_id}/behaviors", server.report, methods=["POST"]),
            Route("/healthz", server.healthz),
            Route("/metrics-lite", server.metrics),
        ],
        exception_handlers=ERROR_ANSWERS,
    )
