"""The refresh queue: who waits by ARPU group, the budget, and who failed too often. LEADRE §4.4.1."""

from __future__ import annotations

from leadre.console.answers import page
from leadre.console.sight import Sight
from leadre.serving.http.messages import Answer, Request
from leadre.store.records.database import session
from leadre.store.records.source_ids import user_source_ids

DEAD_SHOWN = 100
"""Users of the dead set that are named (ours)."""


def show(sight: Sight, _: Request) -> Answer:
    """Show the queue.

    Raises:
        Unavailable: Redis or PostgreSQL does not answer.
    """
    stats, dead = sight.queue.stats(now=sight.clock()), sight.queue.dead()
    with session(sight.database) as connection:
        names = user_source_ids(connection, dead[:DEAD_SHOWN])
    groups = list(enumerate(zip(stats.depth, stats.oldest_s, strict=True)))[::-1]
    return page(
        "queue.html",
        here="queue",
        stats=stats,
        groups=groups,
        waiting=sum(stats.depth),
        deepest=max(stats.depth),
        dead=[names.get(user_id, user_id) for user_id in dead[:DEAD_SHOWN]],
        budget=sight.settings.gpu_budget,
    )
