"""Task of the queue `maintenance`: the daily update of index and model. LEADRE §4.4.1, §5.1."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from leadre.errors import ReleaseMismatch
from workers.app import app
from workers.indexing import index_new_ads
from workers.resources import resources

logger = logging.getLogger(__name__)

ALLOWED_DROP = 0.05
"""A release whose hit ratio falls short of the live one's by more than this share is not promoted (ours)."""


@app.task(acks_late=False)  # type: ignore[untyped-decorator]
def train_daily() -> None:
    """Add the new ads to the live index, train the live release on with the new events, and promote under a guard.

    The codebooks stay as they are, so the model goes on from the live one and knows the old ads' S-IDs.
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.pipelines.release import make_release
    from leadre.store.database import transaction
    from leadre.store.releases import live_release, promote
    from leadre.training.release_folder import load_recipe_of

    held = resources()
    database_url, now = held.settings.database_url, datetime.now(UTC)
    with held.alone("train", at_most_s=20 * 3600) as alone:
        with transaction(held.database) as connection:
            live = live_release(connection)
        if not alone or live is None:
            logger.warning("not_training", extra={"reason": "no release is live" if alone else "one is at it"})
            return
        index_new_ads.run()  # here and now, under its own lock
        recipe = load_recipe_of(Path(live.uri))
        made = make_release(
            database_url=database_url,
            releases=held.settings.releases,
            index=AdIndex.load(held.settings.indexes / live.index_version),
            recipe=recipe,
            now=now,
            warm_start=Path(live.uri),
        )
        name = made.release
        figure = f"metrics.leadre.canonical.HR@{max(recipe.evaluation.cutoffs)}.mean"
        try:
            with transaction(held.database) as connection:
                promote(connection, name, guard={figure: ALLOWED_DROP})
        except ReleaseMismatch as refused:
            logger.error("release_not_promoted", extra={"release": name, "reason": str(refused)})
        else:
            logger.info("release_promoted", extra={"release": name})
