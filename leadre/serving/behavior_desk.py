"""Taking in behaviors: into the stream by one command, or into PostgreSQL for who waits for it.

LEADRE §4.4.1. Writes do not pretend: 202 says that the behaviors will not be lost, and a request that is sent again
changes nothing. Without Redis they go to PostgreSQL; without either, the caller is told to send them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from leadre.domain.behavior import Behavior, Domain
from leadre.errors import InvalidInput, Unavailable
from leadre.serving.behavior_stream import BEHAVIORS, add_command, encode
from leadre.serving.contracts import Accepted
from leadre.serving.http.limits import shortened, user_in
from leadre.serving.http.messages import Answer, Refusal, Request, json_answer
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.reported import behaviors_in
from leadre.store.records.request_path import Arrivals

logger = logging.getLogger(__name__)

_WRITERS = 16
_ACCEPTED, _STORED, _REFUSED = (BEHAVIORS.labels(outcome) for outcome in ("accepted", "stored", "refused"))
_RETRY = [(b"retry-after", b"1")]


class BehaviorDesk:
    """What the route does that takes in behaviors.

    Args:
        redis: the process's connection to the stream.
        store: writes behaviors to PostgreSQL (`store_now`). It blocks.
        mark: puts stale users into the refresh queue. It blocks.
        max_entries: of the stream; a full one refuses.
        write_deadline_s: seconds that PostgreSQL may take before the caller is told to try again.
        counters: counts what was not queued.
        clock: the time.
    """

    def __init__(
        self,
        *,
        redis: RedisConnection,
        store: Callable[[Sequence[Behavior], datetime], Arrivals],
        mark: Callable[[Arrivals], object],
        max_entries: int,
        counters: Counter[str],
        write_deadline_s: float = 2.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._redis, self._store, self._mark, self._clock = redis, store, mark, clock
        self._max_entries, self._write_deadline_s = max_entries, write_deadline_s
        self._counters = counters
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer")

    def report(self, request: Request) -> asyncio.Future[Answer]:
        """Answer `POST /v1/users/{user_id}/behaviors?wait=`: 202 once they are safe, 503 when nothing answers."""
        user_id, _ = user_in(request.parameters["user_id"])
        wait = request.asked("wait")
        if wait not in (None, "stored"):
            raise InvalidInput(
                f"{shortened(wait)} is nothing to wait for; write stored, or leave it out", column="wait"
            )
        now = self._clock()
        behaviors = behaviors_in(request.body, user_id=user_id, now=now)
        if wait == "stored":
            return asyncio.ensure_future(self._stored(behaviors, now))
        entry = encode(behaviors, request_id=request.request_id, arrived_at=now)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def added(reply: Any) -> None:
            if answered.done():
                return
            if isinstance(reply, bytes):
                _ACCEPTED.inc(len(behaviors))
                answered.set_result(json_answer(Accepted(accepted=len(behaviors), stored=False), status=202))
            elif reply is None:
                answered.set_exception(self._refused(len(behaviors), "the stream of behaviors is full"))
            else:  # Redis may have it or not: PostgreSQL takes it either way, and once
                storing = asyncio.ensure_future(self._stored(behaviors, now))
                storing.add_done_callback(lambda done: _pass_on(done, answered))

        self._redis.ask(add_command(entry, max_entries=self._max_entries), added)
        return answered

    async def _stored(self, behaviors: Sequence[Behavior], now: datetime) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            storing = loop.run_in_executor(self._writers, self._store, behaviors, now)
            arrivals = await asyncio.wait_for(storing, self._write_deadline_s)
        except (Unavailable, TimeoutError) as error:
            logger.warning("write_refused", extra={"error": type(error).__name__})
            raise self._refused(len(behaviors), "the system of record does not answer") from None
        _STORED.inc(len(behaviors))
        try:
            await asyncio.wait_for(loop.run_in_executor(self._writers, self._mark, arrivals), self._write_deadline_s)
            queued = True
        except Exception as error:  # noqa: BLE001 - the behaviors are safe; the reconciler marks the user later
            self._counters["unqueued"] += 1
            logger.warning("mark_failed", extra={"error": type(error).__name__})
            queued = False
        return json_answer(
            Accepted(
                accepted=len(behaviors),
                stored=True,
                queued=queued,
                unknown_ads=arrivals.unknown[Domain.AD],
                unknown_content_items=arrivals.unknown[Domain.CONTENT],
            ),
            status=202,
        )

    def _refused(self, behaviors: int, why: str) -> Refusal:
        _REFUSED.inc(behaviors)
        return Refusal(503, f"{why}; send the request again", headers=_RETRY)


def _pass_on(done: asyncio.Future[Answer], answered: asyncio.Future[Answer]) -> None:
    if answered.done() or done.cancelled():
        answered.cancel()
    elif error := done.exception():
        answered.set_exception(error)
    else:
        answered.set_result(done.result())
