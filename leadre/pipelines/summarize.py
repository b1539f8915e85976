"""Summarize: behaviors to interest summaries and behavior sequences, for everybody. LEADRE §4.2.1.

Runs hourly (the paper's T+1 features are daily); right after new behaviors the retriever does it for whom they concern.
A run takes the users whose rows changed, or of whom something left the window: its cost is theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

from leadre.errors import InvalidInput
from leadre.pipelines.distribution.regroup import SMOOTHING, regroup_if_due
from leadre.store.records import summaries
from leadre.store.records.database import connect, transaction
from leadre.store.records.distribution.arpu import MARGIN
from leadre.store.records.summaries import SummaryCounts

Progress = Callable[[str, int], None]
"""Called with what is counted, and how many are done."""


def summarize(
    database_url: str,
    *,
    now: datetime,
    window_days: int | None = None,
    connections: int = 2,
    progress: Progress | None = None,
    margin: float = MARGIN,
    smoothing: float = SMOOTHING,
) -> SummaryCounts:
    """Bring the summaries up to `now`, in small transactions; a run that is stopped is gone on with by the next.

    Args:
        database_url: the system of record.
        now: what is known later does not exist yet.
        window_days: as `summaries.summarize_batch`.
        connections: how many work side by side (ours).
        progress: told of the users that are done.
        margin: of the ARPU groups, as `leadre.pipelines.distribution.regroup.regroup`; they are made anew once a day.
        smoothing: likewise.

    Raises:
        InvalidInput: there are behaviors, but none in the window, and nobody was summarized before.
        Unavailable: PostgreSQL does not answer.
    """
    engine = connect(database_url)

    def summarized(batch: list[int]) -> SummaryCounts:
        with transaction(engine) as connection:
            return summaries.summarize_batch(connection, batch, now=now, window_days=window_days)

    try:
        with transaction(engine) as connection:
            counts = SummaryCounts(users=regroup_if_due(connection, now=now, margin=margin, smoothing=smoothing))
        with transaction(engine) as connection:
            if problem := summaries.nothing_in_window(connection, now=now, window_days=window_days):
                raise InvalidInput(problem)
            summaries.settle_everybody(connection, now=now)
        batches = summaries.waiting_batches(lambda: transaction(engine), now=now)
        with ThreadPoolExecutor(connections) as workers:
            while some := list(islice(batches, 16 * connections)):  # memory holds a page of users, not all
                for of_batch in workers.map(summarized, some):
                    counts += of_batch
                    if progress is not None:
                        progress("users", counts.summarized)
        return counts
    finally:
        engine.dispose()
