"""Rolling releases: trained up to an instant of the past, to decode what followed. LEADRE §4.4.1, §5.1.

They are kept as candidates, named `ROLLING` in their figures, so that none is promoted unless by its name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.dataset.past import TICK, PastRelease, past_releases
from leadre.pipelines.index.build import build_index
from leadre.pipelines.learning.release import Progress, make_release
from leadre.recipe import Recipe, encode_recipe
from leadre.settings import Settings
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import ROLLING, list_releases

logger = logging.getLogger(__name__)


def rolling_releases(
    settings: Settings,
    instants: Sequence[datetime],
    *,
    recipe: Recipe,
    index_version: str,
    retrain_every: timedelta,
    progress: Progress | None = None,
) -> list[tuple[datetime, PastRelease]]:
    """Train a release before every so many instants, unless an earlier call did; return each instant with its release.

    An index whose codebooks were fitted on behaviors is built anew for each release, from the behaviors before it.
    Instants before which there was nothing to learn are left out.

    Args:
        settings: where the artifacts are.
        instants: ascending.
        recipe: of the releases, and of an index that is built anew.
        index_version: the index, where its codebooks were fitted on texts alone.
        retrain_every: from one training to the next.
        progress: called as training goes on.

    Raises:
        ConfigError, ReleaseMismatch, Unavailable: as `make_release`.
    """
    found = []
    for first, group in _by_training(instants, retrain_every):
        if release := _release_before(settings, first, recipe=recipe, index_version=index_version, progress=progress):
            found += [(at, release) for at in group]
    return found


def trainings(instants: Sequence[datetime], retrain_every: timedelta) -> int:
    """Return how many releases `rolling_releases` needs."""
    return sum(1 for _ in _by_training(instants, retrain_every))


def _by_training(instants: Sequence[datetime], retrain_every: timedelta) -> Iterator[tuple[datetime, list[datetime]]]:
    for _, group in groupby(instants, lambda at: (at - instants[0]) // retrain_every):
        together = list(group)
        yield together[0], together


def _release_before(
    settings: Settings, at: datetime, *, recipe: Recipe, index_version: str, progress: Progress | None
) -> PastRelease | None:
    until = at - TICK
    if recipe.index.signal == "text":
        index = AdIndex.load(settings.indexes / index_version)
    else:
        index = build_index(
            database_url=settings.database_url,
            indexes=settings.indexes,
            recipe=recipe.index,
            now=until,
            held_out=recipe.evaluation,
            progress=progress,
        )
    named = json.dumps(encode_recipe(recipe), sort_keys=True) + index.version
    name = f"{recipe.name}-{hashlib.sha256(named.encode()).hexdigest()[:8]}-before-{at:%Y%m%dT%H%M%S}"
    database = connect(settings.database_url, application_name="leadre dataset")
    try:
        with transaction(database) as connection:
            recorded = {row.release: row for row in list_releases(connection)}
        if name not in recorded:
            for leftover in (name, f"{name}-sft"):  # of a run that was killed before it was recorded
                shutil.rmtree(settings.releases / leftover, ignore_errors=True)
            try:
                make_release(
                    database_url=settings.database_url,
                    releases=settings.releases,
                    index=index,
                    recipe=recipe,
                    now=until,
                    name=name,
                    notes={ROLLING: True},
                    progress=None if progress is None else lambda what, *done: progress(f"{at:%m-%d} {what}", *done),
                )
            except InvalidInput as nothing:
                logger.warning("nothing_to_learn", extra={"before": at.isoformat(), "reason": str(nothing)})
                return None
        with transaction(database) as connection:
            return next(known for known in past_releases(connection) if known.row.release == name)
    finally:
        database.dispose()
