"""Materialize: what is new in the sources of feature views to the online store, in one process or several.

LEADRE §4.4.1. Beat runs it every five minutes; people type it after an import. A killed one goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from leadre.store.features.client import FeatureClient
from leadre.store.features.materialization.processes import write_in_processes
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
        processes: how many write shards on this machine.
        shard_entities: most entities of a shard.
        progress: told of each view's rows.

    Raises:
        ConfigError: there is no such view, or it cannot be materialized.
        FeatureRowMismatch: rows did not arrive in the online store.
        Unavailable: PostgreSQL or Redis does not answer.
    """
    done: Counter[str] = Counter()
    total: Counter[str] = Counter()

    def report(view: str, rows: int) -> None:
        done[view] += rows
        progress(view, done[view], total[view])

    def share(found: Mapping[str, View], under_way: Sequence[Run]) -> None:
        for run in under_way:
            total[run.view] += run.entities
            report(run.view, run.read)
        write_in_processes(features.servers, found, under_way, processes=processes, report=report)

    return features.materialize(
        now=now, views=views, full=full, shard_entities=shard_entities, share=share, report=report
    )
