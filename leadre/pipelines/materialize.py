"""Materialize: what is new in the sources of feature views to the online store, in one process or several.

LEADRE §4.4.1. Beat runs it every five minutes; people type it after an import. A killed one goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from leadre.store.features.client import FeatureClient
from leadre.store.features.materialization.processes import processes_beside
from leadre.store.features.materialization.run import Materialized
from leadre.store.features.materialization.runs import SHARD_ENTITIES

if TYPE_CHECKING:
    from leadre.store.features.materialization.runs import Run
    from leadre.store.features.materialization.view import View

Progress = Callable[[str, int, int | None], None]
"""What is being done, how much of it is done, and of how much."""


def materialize(
    features: FeatureClient,
    *,
    now: datetime,
    views: Collection[str] = (),
    full: bool = False,
    processes: int = 1,
    shard_entities: int = SHARD_ENTITIES,
    progress: Progress = lambda *_: None,
) -> Materialized:
    """Bring the online store up to `now`.

    Args:
        features: the feature store.
        now: rows with a later event time wait.
        views: only these; all, if none is given.
        full: everything, not what is new.
        processes: how many write shards on this machine, this one among them.
        shard_entities: most entities of a shard.
        progress: told of each view's rows.

    Raises:
        ConfigError: there is no such view, or it cannot be materialized.
        FeatureRowMismatch: rows did not arrive in the online store.
        Unavailable: PostgreSQL or Redis does not answer.
    """
    done: Counter[str] = Counter()
    total: Counter[str] = Counter()

    hear: Callable[[], None] | None = None

    def count(view: str, rows: int) -> None:
        done[view] += rows
        progress(view, done[view], total[view])

    def report(view: str, rows: int) -> None:
        count(view, rows)
        if hear:
            hear()

    @contextmanager
    def share(found: Mapping[str, View], under_way: Sequence[Run]) -> Iterator[None]:
        nonlocal hear
        for run in under_way:
            total[run.view] += run.entities
            count(run.view, run.read)
        others = min(processes, sum(run.shards for run in under_way)) - 1  # this process is one
        with processes_beside(features.servers, found, under_way, processes=others, report=count) as hear:
            yield

    return features.materialize(
        now=now, views=views, full=full, shard_entities=shard_entities, share=share, report=report
    )
