"""Taking in behaviors: into the stream by one command, or into PostgreSQL for who waits for it.

LEADRE §4.4.1. What comes in one turn of the event loop goes by one command. Writes do not pretend: 202 says that the
behaviors will not be lost, and a request that is sent again changes nothing. Without Redis they go to PostgreSQL;
without either, the caller is told to send them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from leadre.domain.behavior import Behavior, Domain
from leadre.errors import InvalidInput, Unavailable
from leadre.serving.behavior_stream import BEHAVIORS, add_command, encode
from leadre.serving.contracts import Accepted
from leadre.serving.http.limits import shortened, user_in
from leadre.serving.http.messages import Answer, Refusal, Request, json_answer
from leadre.serving.redis.connection import RedisConnection
from leadre.serving.reported import MAX_BEHAVIORS, behaviors_in
from leadre.store.records.request_path import Arrivals

logger = logging.getLogger(__name__)

_WRITERS = 16
_ACCEPTED, _STORED, _REFUSED = (BEHAVIORS.labels(outcome) for outcome in ("accepted", "stored", "refused"))
_RETRY = [(b"retry-after", b"1")]
_AT_ONCE = 128
"""Entries that one command adds at most: Redis does nothing else meanwhile (ours)."""


class _Report(NamedTuple):
    """What a request reported, and its entry in the stream."""

    request: Request
    behaviors: Sequence[Behavior]
    now: datetime
    entry: bytes


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
        self._leaving: list[_Report] = []
        self._storing: set[asyncio.Task[None]] = set()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="writer")

    def report(self, request: Request) -> Awaitable[Answer] | None:
        """Answer `POST /v1/users/{user_id}/behaviors?wait=`: 202 once they are safe, 503 when nothing answers."""
        user_id, wait = request.match.kept or _asked(request)
        now = self._clock()
        behaviors = behaviors_in(request.body, user_id=user_id, now=now)
        if wait:
            return self._stored(behaviors, now)
        entry = encode(behaviors, request_id=request.request_id, arrived_at=now)
        report = _Report(request, behaviors, now, entry)
        if 0 < len(self._leaving) < _AT_ONCE:
            self._leaving.append(report)
        else:
            self._leaving = leaving = [report]
            self._redis.ask(partial(self._command, leaving), partial(self._added, leaving))
        return None

    def _command(self, reports: Sequence[_Report]) -> bytes:
        """Write the command for what came in this turn of the event loop: now it leaves."""
        self._leaving = []
        return add_command([report.entry for report in reports], max_entries=self._max_entries)

    def _added(self, reports: Sequence[_Report], reply: Any) -> None:
        if type(reply) is int:
            _ACCEPTED.inc(sum([len(report.behaviors) for report in reports[:reply]]))
            for report in reports[:reply]:
                report.request.answer(_accepted(len(report.behaviors)))
            for report in reports[reply:]:
                report.request.fail(self._refused(len(report.behaviors), "the stream of behaviors is full"))
        else:  # Redis may have them or not: PostgreSQL takes them either way, and once
            self._leaving = []
            for report in reports:
                storing = asyncio.ensure_future(self._store_for(report))
                self._storing.add(storing)
                storing.add_done_callback(self._storing.discard)

    async def _store_for(self, report: _Report) -> None:
        try:
            answer = await self._stored(report.behaviors, report.now)
        except Exception as error:  # noqa: BLE001 - its caller gets to know
            report.request.fail(error)
        else:
            report.request.answer(answer)

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


def _asked(request: Request) -> tuple[int, bool]:
    """Return whose behaviors a request reports, and whether it waits until they are stored."""
    user_id, _ = user_in(request.parameters["user_id"])
    wait = request.asked("wait")
    if wait not in (None, "stored"):
        raise InvalidInput(f"{shortened(wait)} is nothing to wait for; write stored, or leave it out", column="wait")
    request.match.kept = asked = (user_id, wait is not None)
    return asked


@lru_cache(maxsize=MAX_BEHAVIORS)
def _accepted(behaviors: int) -> Answer:
    return json_answer(Accepted(accepted=behaviors, stored=False), status=202)
