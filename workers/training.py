"""Task of the queue `maintenance`: the daily update of index and model. LEADRE §4.4.1, §5.1."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from leadre.errors import InvalidInput, ReleaseMismatch

from .app import app
from .indexing import index_new_ads
from .resources import resources

logger = logging.getLogger(__name__)


@app.task(name="workers.training.train_daily", acks_late=False)  # type: ignore[untyped-decorator]
def train_daily() -> None:
    """Add the new ads to the live index, train the live release on with the new events, and promote under a guard.

    The codebooks stay as they are, so the model goes on from the live one and knows the old ads' S-IDs. It learns from
    the users with a behavior since the live one's training. Both are measured on the same users and targets, those of
    today, for figures of different days do not compare. A release that is kept back stays a candidate, with the reason.
    """
    from leadre.indexing.ad_index import AdIndex
    from leadre.pipelines.learning.release import evaluate_release, make_release
    from leadre.store.records.database import transaction
    from leadre.store.release.promotion import promote_guarded
    from leadre.store.release.records import live_release
    from leadre.training.learner.release_folder import load_recipe_of, trained_until

    held = resources()
    database_url, now = held.settings.database_url, datetime.now(UTC)
    with held.alone("train", at_most_s=20 * 3600) as alone:
        with transaction(held.database) as connection:
            live = live_release(connection)
        if not alone or live is None:
            logger.warning("not_training", extra={"reason": "no release is live" if alone else "one is at it"})
            return
        index_new_ads.run()  # here and now, under its own lock
        index = AdIndex.load(held.settings.indexes / live.index_version)
        try:
            made = make_release(
                database_url=database_url,
                releases=held.settings.releases,
                index=index,
                recipe=load_recipe_of(Path(live.uri)),
                now=now,
                warm_start=Path(live.uri),
                since=trained_until(Path(live.uri)),
            )
        except InvalidInput as nothing:
            logger.warning("not_training", extra={"reason": str(nothing)})
            return
        today = evaluate_release(Path(live.uri), database_url=database_url, index=index, now=now, baselines="none")
        try:
            promote_guarded(held.database, made.release, remeasured={live.release: today.to_json()})
        except ReleaseMismatch as refused:
            logger.error("release_not_promoted", extra={"release": made.release, "reason": str(refused)})
        else:
            logger.info("release_promoted", extra={"release": made.release})
