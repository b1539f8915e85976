"""Tasks of the queue `maintenance`: features up to date, and no user forgotten. LEADRE §4.2.1, §4.4.1."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .app import app
from .resources import resources

if TYPE_CHECKING:
    from leadre.store.features.materialization.runs import Run

logger = logging.getLogger(__name__)


@app.task(name="workers.materialization.summarize", acks_late=False)  # type: ignore[untyped-decorator]
def summarize() -> None:
    """Bring interest summaries, behavior sequences and ARPU groups up to date."""
    from leadre.errors import InvalidInput
    from leadre.pipelines.summarize import summarize

    held = resources()
    with held.alone("summarize", at_most_s=3600) as alone:
        if alone:
            try:
                summarize(
                    held.settings.database_url,
                    now=datetime.now(UTC),
                    margin=held.settings.arpu_margin,
                    smoothing=held.settings.arpu_smoothing,
                )
            except InvalidInput as error:  # an old log, for experiments: nothing is lost
                logger.warning("nothing_summarized", extra={"error": str(error)})


@app.task(name="workers.materialization.materialize", acks_late=False)  # type: ignore[untyped-decorator]
def materialize() -> None:
    """Bring the online store up to date; other workers of the queue take shards where there are many rows."""
    held = resources()
    with held.alone("materialize", at_most_s=3600) as alone:
        if alone:
            done = held.features.materialize(now=datetime.now(UTC), share=_offer)
            for line in done.said:
                logger.warning("materialization_mended", extra={"said": line})
            logger.info("materialized", extra={"read": sum(done.read.values()), "written": sum(done.written.values())})


@app.task(name="workers.materialization.materialize_shard", acks_late=False)  # type: ignore[untyped-decorator]
def materialize_shard() -> None:
    """Write one shard that nobody works on. It is PostgreSQL that knows which: a lost message loses nothing."""
    resources().features.materialize_shard()


@contextmanager
def _offer(_: object, under_way: Sequence[Run]) -> Iterator[None]:
    for _ in range(sum(max(run.shards - 1, 0) for run in under_way)):  # this process takes part as well
        materialize_shard.apply_async(expires=300)
    yield


@app.task(name="workers.materialization.reconcile", acks_late=False)  # type: ignore[untyped-decorator]
def reconcile() -> None:
    """Repair what the online store and the queue have lost, where no worker of the queue `retrieval` does."""
    from .upkeep import look

    look(resources())


@app.task(name="workers.materialization.drop_old_months", acks_late=False)  # type: ignore[untyped-decorator]
def drop_old_months() -> None:
    """Drop months that are older than the settings say, if they say so."""
    from leadre.pipelines.retention import drop_old_months as drop

    held = resources()
    days, export = held.settings.retention_days, held.settings.retention_export
    if days is None:
        return
    with held.alone("retention", at_most_s=12 * 3600) as alone:
        if alone:
            drop(held.database, now=datetime.now(UTC), days=days, export=export)
