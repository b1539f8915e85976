"""Task of the queue `maintenance`: the daily update of index and model. LEADRE §4.4.1, §5.1."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from leadre.errors import ReleaseMismatch
from workers.app import app
from workers.resources import resources

logger = logging.getLogger(__name__)

ALLOWED_DROP = 0.05
"""A release whose hit ratio falls short of the live one's by more than this share is not promoted (ours)."""


@app.task(acks_late=False)  # type: ignore[untyped-decorator]
def train_daily() -> None:
    """Build the index of today's ads, train the live release's recipe on it, evaluate, and promote under a guard.

    While the ads are the same the index is as well, and training goes on from the live model.
    """
    from leadre.decoding.load import load_engine
    from leadre.pipelines.build_index import build_index
    from leadre.pipelines.evaluate import LEADRE, evaluate
    from leadre.pipelines.train import train
    from leadre.recipe import encode_recipe
    from leadre.store.database import transaction
    from leadre.store.releases import live_release, promote, record_release
    from leadre.training.release_folder import load_prompt_encoder, load_recipe_of

    held = resources()
    database_url, now = held.settings.database_url, datetime.now(UTC)
    with held.alone("train", at_most_s=20 * 3600) as alone:
        with transaction(held.database) as connection:
            live = live_release(connection)
        if not alone or live is None:
            logger.warning("not_training", extra={"reason": "no release is live" if alone else "one is at it"})
            return
        recipe = load_recipe_of(Path(live.uri))
        index = build_index(database_url=database_url, indexes=held.settings.indexes, recipe=recipe.index, now=now)
        trained = train(
            database_url=database_url,
            releases=held.settings.releases,
            index=index,
            recipe=recipe,
            now=now,
            warm_start=Path(live.uri) if live.index_version == index.version else None,
        )
        name = trained.folder.name
        evaluation = evaluate(
            database_url=database_url,
            index=index,
            engine=load_engine(trained.folder, index=index),
            encoder=load_prompt_encoder(trained.folder),
            recipe=recipe,
        )
        with transaction(held.database) as connection:
            record_release(
                connection,
                name,
                index_version=index.version,
                uri=str(trained.folder),
                recipe=encode_recipe(recipe),
                metrics=evaluation.to_json(),
            )
        figure = f"metrics.{LEADRE}.canonical.HR@{evaluation.cutoffs[-1]}.mean"
        try:
            with transaction(held.database) as connection:
                promote(connection, name, guard={figure: ALLOWED_DROP})
        except ReleaseMismatch as refused:
            logger.error("release_not_promoted", extra={"release": name, "reason": str(refused)})
        else:
            logger.info("release_promoted", extra={"release": name})
