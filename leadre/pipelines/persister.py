"""The persister: a loop that reads the stream of behaviors and writes it to PostgreSQL. LEADRE §4.4.1; docs/adr/0011.

Any number of them share the work as consumers of one group. What one has read and not settled when it dies comes to
the others after `IDLE_S`; so does what it could not write, for whatever reason.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from leadre.logs import place_of
from leadre.pipelines.ingest import ENTRIES, Entry, Persisted, batches, persist, settle
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.serving.behavior_stream import FIELD, GROUP, STREAM, length
from leadre.settings import Settings
from leadre.store.records.database import connect

if TYPE_CHECKING:
    from sqlalchemy import Engine as Database

logger = logging.getLogger(__name__)

IDLE_S = 3.0
"""Seconds after which an entry that was read and not settled goes to whoever asks (ours)."""
MOST_ENTRIES = 1_000
"""Entries read at once (ours): PostgreSQL writes 25 times the rows/s in batches of so many as one by one."""
_RECLAIM_S = 0.5
"""How often unsettled entries of others are asked for."""
_AGAIN_S, _PATIENCE_S = 0.1, 1.0
"""How often an entry of a busy user is tried by who has read it, and for how long: summaries hold users that long."""
_SWEEP_S = 60.0

# Removes consumers without entries of their own whom nobody has heard of for a while. Atomic: with a consumer go the
# entries that it has read.
_SWEEP = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about.pending == 0 and (about.idle > tonumber(ARGV[2]) or about.name == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
  end
end
"""


class Persister:
    """One consumer of the stream. Not thread-safe: a thread each.

    Args:
        redis: a client that returns bytes; its socket timeout exceeds a second.
        database: the system of record; its statements end in time.
        queue: where stale users are marked.
        clock: the time.
        consumer: a name that no other persister has, nor had; None makes one.
        idle_s: as `IDLE_S`.
    """

    def __init__(
        self,
        *,
        redis: Redis,
        database: Database,
        queue: RefreshQueue,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        consumer: str | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._redis, self._database, self._queue, self._clock = redis, database, queue, clock
        self._consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._idle_ms = int(idle_s * 1000)
        self._held: dict[bytes, Entry] = {}  # read and not settled
        self._put_off: dict[bytes, tuple[Entry, float]] = {}  # of busy users, and until when they are tried here
        self._again_at = self._reclaim_at = self._sweep_at = 0.0
        self._cursor: Any = "0-0"

    def run(self, stopping: threading.Event) -> None:
        """Read and write until `stopping` is set, and finish the batch at hand. Nothing else ends it."""
        trouble = ""
        while not stopping.is_set():
            try:
                self.step(block_s=1.0)
                trouble = ""
            except Exception as error:  # noqa: BLE001 - what is not settled is tried again
                if (what := place_of(error)) != trouble:
                    logger.warning("persister_waits", extra={"error": what})
                trouble = what
                with suppress(RedisError):
                    ENTRIES.set(length(self._redis))  # they pile up
                stopping.wait(0.2)
        with suppress(RedisError):
            self._sweep(and_me=True)

    def drain(self) -> Persisted:
        """Write what is there, but for entries of users who stay busy and entries that others are writing.

        Raises:
            Unavailable, redis.RedisError: a server does not answer.
        """
        done = Persisted()
        while (more := self.step(block_s=_AGAIN_S if self._put_off else 0)) != Persisted() or self._put_off:
            done += more
        return done

    def step(self, *, block_s: float) -> Persisted:
        """Read what is there, up to `MOST_ENTRIES` new ones and as many of others, and write it.

        Args:
            block_s: seconds to wait for an entry when there is none; 0 returns at once.

        Returns:
            What became of it; busy entries may be tried again by this persister or another one.

        Raises:
            Unavailable, redis.RedisError: a server does not answer. What was read is held for the next step.
        """
        if len(self._held) < MOST_ENTRIES:
            self._take(block_s)
        if self._put_off and time.monotonic() >= self._again_at:
            self._held.update((entry_id, entry) for entry_id, (entry, _) in self._put_off.items())
        done = Persisted()
        for batch in batches(list(self._held.values())):
            part = persist(self._database, batch, now=self._clock())
            settle(self._redis, self._queue, part, now=self._clock())
            self._settled(batch, busy=part.busy)
            done += part
        return done

    def _settled(self, batch: Sequence[Entry], *, busy: Sequence[Entry]) -> None:
        now = time.monotonic()
        before = {entry.entry_id: self._put_off.pop(entry.entry_id, None) for entry in batch}
        for entry in batch:
            del self._held[entry.entry_id]
        for entry in busy[: max(0, MOST_ENTRIES - len(self._put_off))]:
            known = before[entry.entry_id]
            until = now + _PATIENCE_S if known is None else known[1]
            if now < until:
                self._put_off[entry.entry_id] = (entry, until)
        self._again_at = now + _AGAIN_S

    def _take(self, block_s: float) -> None:
        try:
            self._ask(block_s)
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):  # a script's has words before them
                raise
            with suppress(ResponseError):  # another one was faster
                self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
            self._ask(block_s)

    def _ask(self, block_s: float) -> None:
        now = time.monotonic()
        taken = 0
        if now >= self._reclaim_at:
            taken = self._reclaim()
            self._reclaim_at = now if taken == MOST_ENTRIES else now + _RECLAIM_S
        if taken or self._held:
            block_s = 0
        self._read(min(block_s, _AGAIN_S) if self._put_off else block_s)
        if now >= self._sweep_at:
            self._sweep()
            self._sweep_at = now + _SWEEP_S

    def _read(self, block_s: float) -> None:
        block_ms = max(1, int(block_s * 1000)) if block_s else None
        found = self._redis.xreadgroup(GROUP, self._consumer, {STREAM: ">"}, count=MOST_ENTRIES, block=block_ms)
        for _, entries in cast("list[Any]", found):
            self._hold(entries)

    def _reclaim(self) -> int:
        self._cursor, entries, *_ = cast(
            "list[Any]",
            self._redis.xautoclaim(
                STREAM, GROUP, self._consumer, self._idle_ms, start_id=self._cursor, count=MOST_ENTRIES
            ),
        )
        self._hold(entries)
        return len(entries)

    def _hold(self, entries: Sequence[tuple[bytes | None, Mapping[bytes, bytes]]]) -> None:
        for entry_id, fields in entries:
            if entry_id is not None:  # None: somebody took it out of the stream
                self._held[entry_id] = Entry(entry_id=entry_id, payload=fields.get(FIELD.encode(), b""))

    def _sweep(self, *, and_me: bool = False) -> None:
        rested_ms = int(_SWEEP_S * 1000)
        self._redis.eval(_SWEEP, 1, STREAM, GROUP, rested_ms, self._consumer if and_me else "")


def persister_of(settings: Settings) -> Persister:
    """Return a persister with connections of its own, whose waits are short."""
    return Persister(
        redis=Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=1),
        database=connect(
            settings.database_url,
            application_name="leadre persister",
            connect_timeout_s=2,
            statement_timeout_s=30,
            lock_timeout_s=1,
        ),
        queue=RefreshQueue.connect(settings.redis_url),
    )
