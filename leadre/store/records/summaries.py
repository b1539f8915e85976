"""Summaries: what prompts need of each user, from behaviors, by set-based SQL. LEADRE §4.2.1 (3, 4, 5), §5.4.

A row's `event_at` is the instant from which its content was known (docs/adr/0005). Rows are appended, never changed: a
point-in-time join finds at any instant what was known then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, text

from leadre.domain.behavior import WINDOW_DAYS, window_start
from leadre.store.records.distribution.arpu import group_by_arpu
from leadre.store.records.known.instants import claim, months, settle, waiting
from leadre.store.records.known.rows import append_sequences, append_summaries
from leadre.store.records.partitions import ensure_months

BATCH_ROWS = 25_000
"""Rows ever written of the users of a batch (ours): whoever writes a behavior of one of them waits for its end, half a
second."""
_PAGE_USERS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryCounts:
    """How many rows a run appended, by table; `users` of whom it changed the ARPU group; users `summarized`."""

    interest_summaries: int = 0
    behavior_sequences: int = 0
    users: int = 0
    summarized: int = 0

    def __add__(self, other: SummaryCounts) -> SummaryCounts:
        """Add up, field by field."""
        return SummaryCounts(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})


def write_summaries(
    connection: Connection,
    *,
    now: datetime,
    window_days: int | None = None,
    top: int = 20,
    longest: int = 512,
) -> SummaryCounts:
    """Append interest summaries and behavior sequences up to `now`, and group users by ARPU, in one transaction.

    One row for each instant at which a user's content changed. Running it again appends nothing. Liked are positive
    behaviors of both domains by category (an ad's second level, or its first if it has no second) and by SPU; disliked
    are skips, and impressions without click and conversion.

    Args:
        connection: in a transaction.
        now: what is known later does not exist yet.
        window_days: as `summarize_batch`.
        top: as there.
        longest: as there.
    """
    one = partial(summarize_batch, connection, now=now, window_days=window_days, top=top, longest=longest)
    settle_everybody(connection, now=now)
    counts = SummaryCounts(users=group_by_arpu(connection))
    for batch in list(waiting_batches(lambda: nullcontext(connection), now=now)):
        counts += one(batch)
    return counts


def waiting_batches(
    connect: Callable[[], AbstractContextManager[Connection]], *, now: datetime, rows: int = BATCH_ROWS
) -> Iterator[list[int]]:
    """Yield batches of the users who wait for a summary, by ascending id.

    Args:
        connect: gives a connection in a transaction, a short one for each page of users.
        now: what is known later does not exist yet.
        rows: a batch ends where so many rows were ever written of its users.
    """
    after = -1
    while True:
        with connect() as connection:
            page = waiting(connection, now=now, after=after, users=_PAGE_USERS)
        batch, size = [], 0
        for user_id, written in page:
            batch.append(user_id)
            size += written
            if size >= rows:
                yield batch
                batch, size = [], 0
            after = user_id
        if batch:
            yield batch
        if len(page) < _PAGE_USERS:
            return


def summarize_batch(
    connection: Connection,
    user_ids: Collection[int],
    *,
    now: datetime,
    window_days: int | None = None,
    top: int = 20,
    longest: int = 512,
) -> SummaryCounts:
    """Summarize users who wait, in one transaction; they stay locked until its end. Of given ones: `summarize_given`.

    Args:
        connection: in a transaction.
        user_ids: left to the next run is who is being written to; left out, who has no news.
        now: what is known later does not exist yet.
        window_days: whole days before that of an instant whose behaviors count at it; None: as the live release's
            recipe says, or the paper's 90.
        top: names kept of each kind, most frequent first (ours).
        longest: behaviors kept in each domain, the newest (ours; a robot's thousands fit no prompt).
    """
    days = live_window_days(connection) if window_days is None else window_days
    claimed = claim(connection, user_ids, now=now, window_days=days)
    if not claimed:
        return SummaryCounts()
    for table in ("interest_summaries", "behavior_sequences"):
        ensure_months(connection, table, months(connection))
    summaries = append_summaries(connection, now=now, top=top)
    sequences = append_sequences(connection, now=now, longest=longest)
    settle(connection, now=now)
    return SummaryCounts(interest_summaries=summaries, behavior_sequences=sequences, summarized=claimed)


def settle_everybody(connection: Connection, *, now: datetime) -> None:
    """Let whatever is written from here on be known after `now`, of users without news too: they are served as known.

    For a run over everybody, before its first batch. A write under way may still be known a moment before.
    """
    statement = text(
        "INSERT INTO settled (until) VALUES (:now) "
        "ON CONFLICT (everybody) DO UPDATE SET until = greatest(settled.until, excluded.until)"
    )
    connection.execute(statement, {"now": now})


def live_window_days(connection: Connection) -> int:
    """Return the window of the live release's recipe; the paper's where none is live."""
    query = text("SELECT CAST(recipe -> 'prompt' ->> 'window_days' AS integer) FROM releases WHERE status = 'live'")
    return connection.scalar(query) or WINDOW_DAYS


def nothing_in_window(connection: Connection, *, now: datetime, window_days: int | None = None) -> str | None:
    """Return why a run at `now` over everybody would find no behavior to summarize; None if it finds some.

    Users who have been summarized are worth a run all the same: what has left the window leaves their rows.
    """
    days = live_window_days(connection) if window_days is None else window_days
    query = text("SELECT max(newest_behavior_at), count(leaves_at) FROM user_state")
    newest, summarized = connection.execute(query).one()
    if newest is None or summarized or newest >= window_start(now, days=days):
        return None
    behaviors = connection.scalar(text("SELECT count(*) FROM behaviors"))
    return (
        f"{behaviors:,} behaviors, none in the {days} days before {now:%Y-%m-%d}; the newest is of {newest:%Y-%m-%d}: "
        "--now, or --window-days as prompt.window_days of the recipe"
    )
