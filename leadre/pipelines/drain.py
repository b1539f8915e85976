"""Drain: from waiting users to stored lists, in micro-batches, lane by lane. The worker's loop.

LEADRE §4.4.1, the latency-tolerant module. A batch is what waits at that moment: nobody waits for company. Leases are
short, so that a dead worker's users are soon another's, and are renewed while a batch is at work.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Histogram

from leadre.errors import ArtifactIncomplete, ConfigError, NoValidContinuation, ReleaseMismatch, Unavailable
from leadre.logs import place_of
from leadre.retrieval.refresh_queue import Claim, Lane, RefreshQueue
from leadre.traces import span

logger = logging.getLogger(__name__)

_NO_USERS_FAULT = (Unavailable, ConfigError, ArtifactIncomplete, ReleaseMismatch, NoValidContinuation)

BATCH_USERS = Histogram("leadre_batch_users", "Users of a batch.", buckets=[2**power for power in range(11)])
REFRESH_SECONDS = Histogram(
    "leadre_refresh_seconds",
    "From the claim of a batch to its lists stored.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWork:
    """A lane and what makes its lists.

    Args:
        lane: of the queue.
        ready: called before each batch; returns what makes and stores the lists of users. What it raises is no user's
            fault, whatever it is.
        batch: most users at once.
    """

    lane: Lane
    ready: Callable[[], Callable[[Sequence[int]], object]]
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a drain did: `refreshed` users in `batches`; `failed` counts attempts, so one user may count thrice."""

    refreshed: int = 0
    batches: int = 0
    failed: int = 0


def drain(
    queue: RefreshQueue,
    *,
    lanes: Sequence[LaneWork],
    lease_s: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> Drained:
    """Work the queue off until it has nothing to give: claim, refresh, complete. An earlier lane is always first.

    When a batch raises, it is halved until the culprit is alone: only that user's attempt counts as failed, and the
    queue gives it out alone from then on, three times at most.

    Args:
        queue: the refresh queue.
        lanes: what this process works on.
        lease_s: seconds after which a dead process's users go to others; renewed as long as a batch is at work.
        should_stop: asked between batches.

    Raises:
        Unavailable: a server does not answer; the users were given back, or their leases run out.
        LeadreError: the release itself is broken (no user's fault); the users were given back.
    """
    refreshed = batches = failed = 0
    with _Renewal(queue, lease_s) as renewal:
        while not should_stop():
            for work in lanes:
                if claims := queue.claim(work.batch, lease_s=lease_s, lane=work.lane):
                    break
            else:
                break
            began = time.monotonic()
            with span("refresh_batch", users=len(claims), lane=work.lane), renewal.of(claims):
                culprits = _refresh(queue, work, claims)
            BATCH_USERS.observe(len(claims))
            REFRESH_SECONDS.observe(time.monotonic() - began)
            refreshed += len(claims) - culprits
            failed += culprits
            batches += 1
    return Drained(refreshed=refreshed, batches=batches, failed=failed)


def _refresh(queue: RefreshQueue, work: LaneWork, claims: list[Claim]) -> int:
    """Refresh claimed users and settle their claims; return how many could not be refreshed."""
    failed, parts = 0, [claims]
    try:
        refresh = work.ready()
    except BaseException:
        with contextlib.suppress(Unavailable):
            queue.release(claims)
        raise
    while parts:
        part = parts.pop()
        try:
            refresh([claim.user_id for claim in part])
        except _NO_USERS_FAULT:
            with contextlib.suppress(Unavailable):
                queue.release([claim for left in (part, *parts) for claim in left])
            raise
        except Exception as error:  # noqa: BLE001 - a poison user may raise anything
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            logger.error("refresh_failed", extra={"user_id": part[0].user_id, "error": place_of(error)})
            queue.fail(part)
            failed += 1
        else:
            queue.complete(part)
    return failed


class _Renewal:
    """A thread that renews the leases of the batch at work, three times a lease."""

    def __init__(self, queue: RefreshQueue, lease_s: float) -> None:
        self._queue, self._lease_s = queue, lease_s
        self._held: list[Claim] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease-renewal", daemon=True)

    def __enter__(self) -> _Renewal:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextlib.contextmanager
    def of(self, claims: list[Claim]) -> Iterator[None]:
        """Renew these claims as long as the block runs; those that were settled meanwhile are no claims any more."""
        if self._thread.ident is None:
            self._thread.start()
        self._held = claims
        try:
            yield
        finally:
            self._held = []

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 3):
            if claims := self._held:
                try:
                    self._queue.renew(claims, self._lease_s)
                except Unavailable as error:  # the next one may come in time; if not, another worker does the same work
                    logger.warning("leases_not_renewed", extra={"error": type(error).__name__})
