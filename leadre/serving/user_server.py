"""The User Server: a user's retrieval list out, the user's new behaviors in. It never runs the LLM.

LEADRE §4.4.1, the latency-sensitive module. Reads fail open: whatever happens to the online store, the answer is 200
within the deadline, with an empty list marked `degraded`. Writes do not pretend: a behavior is acknowledged once
PostgreSQL has it, and a request that is sent again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import MAX_ID
from leadre.domain.retrieval import RetrievalList
from leadre.errors import InvalidInput, Unavailable
from leadre.serving.requests import ERROR_ANSWERS, body_of, limit_of, user_id_of

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
        append: writes behaviors to the system of record, idempotently; returns how many are new. Blocks.
        mark: puts a user into the refresh queue and rings the doorbell. Blocks.
        read_deadline_s: seconds that a read may take before the answer goes out without a list.
        write_deadline_s: seconds that a write may take before the caller is told to try again.
        clock: the time.
    """

    def __init__(
        self,
        *,
        read: Callable[[int], RetrievalList | None],
        append: Callable[[Sequence[Behavior]], int],
        mark: Callable[[int], object],
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
        return JSONResponse(
            {
                "user_id": user_id,
                "release": found.release,
                "index_version": found.index_version,
                "generated_at": found.generated_at.isoformat(),
                "ads": [
                    {"ad_id": beam.ad_id, "sid": str(beam.sid), "log_probability": beam.log_probability}
                    for beam in found.beams[:limit]
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
            new = await asyncio.wait_for(
                loop.run_in_executor(self._writers, self._append, behaviors), self._write_deadline_s
            )
        except (Unavailable, TimeoutError) as error:
            self.counters["refused"] += 1
            logger.warning("write_refused", extra={"error": type(error).__name__})
            return JSONResponse(
                {"error": "the system of record does not answer; send the request again"},
                status_code=503,
                headers={"Retry-After": "1"},
            )
        queued = await self._queued(user_id)
        self.counters["behaviors"] += new
        return JSONResponse({"accepted": len(behaviors), "new": new, "queued": queued}, status_code=202)

    async def healthz(self, _: Request) -> JSONResponse:
        """Answer `GET /healthz`: the process is up; reads fail open, so no server has to be."""
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> JSONResponse:
        """Answer `GET /metrics-lite`: counters since the start."""
        return JSONResponse(dict(self.counters))

    async def _queued(self, user_id: int) -> bool:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(self._writers, self._mark, user_id), self._read_deadline_s)
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


def application(server: UserServer) -> Starlette:
    """Serve a user server's routes."""
    return Starlette(
        routes=[
            Route("/v1/users/{user_id}/ads", server.ads),
            Route("/v1/users/{user_id}/behaviors", server.report, methods=["POST"]),
            Route("/healthz", server.healthz),
            Route("/metrics-lite", server.metrics),
        ],
        exception_handlers=ERROR_ANSWERS,
    )
