"""Make a release: train, measure, record. Promotion is a decision of its own.

LEADRE §4.4.1 (daily training), §5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from leadre.collaborative.blend import Collaborative
from leadre.decoding.engine import Score
from leadre.decoding.load import Precision, load_engine
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import sasrecs_beside
from leadre.pipelines.learning.evaluate import evaluate
from leadre.pipelines.learning.measures import Evaluation
from leadre.pipelines.learning.train import train
from leadre.recipe import Recipe, encode_recipe
from leadre.store.records.database import connect, transaction
from leadre.store.release.records import ReleaseRow, record_release
from leadre.training.learner.release_folder import load_prompt_encoder, load_recipe_of, seen_of

Progress = Callable[[str, int, int | None], None]


def make_release(
    *,
    database_url: str,
    releases: Path,
    index: AdIndex,
    recipe: Recipe,
    now: datetime,
    name: str | None = None,
    warm_start: Path | None = None,
    since: datetime | None = None,
    device: str = "cpu",
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ReleaseRow:
    """Train a release, evaluate it, and record it as a candidate with its figures.

    With DPO, the model before it is recorded as `<name>-sft`, evaluated in the same way.

    Args:
        database_url: the system of record.
        releases: folder of releases.
        index: whose S-IDs the model learns.
        recipe: everything about the training.
        now: later events are not read.
        name: of the release; by default the recipe's name and `now`.
        warm_start: a release of the same index to go on from.
        since: learn only from users with a behavior after this instant.
        device: where it is evaluated, as torch names it; training takes a GPU where there is one.
        notes: recorded among its figures.
        progress: called with what is being done, how much is done, and how much there is.

    Returns:
        The release; its metrics are `Evaluation.to_json()`.

    Raises:
        FileExistsError, InvalidInput, ReleaseMismatch, ConfigError, Unavailable: as `train` and `evaluate`.
    """
    trained = train(
        database_url=database_url,
        releases=releases,
        index=index,
        recipe=recipe,
        now=now,
        name=name,
        progress=progress,
        warm_start=warm_start,
        since=since,
    )
    folders = [folder for folder in (trained.sft_folder, trained.folder) if folder is not None]
    measured = []
    for folder in folders:
        when = " before DPO" if folder == trained.sft_folder else ""
        measured.append(
            evaluate_release(
                folder, database_url=database_url, index=index, now=now, when=when, device=device, progress=progress
            )
        )
    database = connect(database_url, application_name="leadre train")
    try:
        with transaction(database) as connection:
            recorded = [
                record_release(
                    connection,
                    folder.name,
                    index_version=index.version,
                    uri=str(folder),
                    recipe=encode_recipe(recipe),
                    metrics={**evaluation.to_json(), **(notes or {})},
                    trained_until=now,
                )
                for folder, evaluation in zip(folders, measured, strict=True)
            ]
    finally:
        database.dispose()
    return recorded[-1]


def evaluate_release(
    folder: Path,
    *,
    database_url: str,
    index: AdIndex,
    now: datetime | None = None,
    baselines: Literal["recipe", "none"] = "recipe",
    when: str = "",
    score: Score | None = None,
    device: str = "cpu",
    precision: Precision = "fp32",
    collaborative_weight: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the release in a folder by its own recipe.

    Args:
        folder: of the release.
        database_url: the system of record.
        index: the release's.
        now: later behaviors are not read; None: there are none.
        baselines: "recipe" measures the recipe's beside it, "none" the release alone.
        when: said in the progress, for example " before DPO".
        score: another one than the recipe's.
        device: where it is evaluated, as torch names it.
        precision: of the model's weights and activations.
        collaborative_weight: another share of the collaborative signal than the release's; 0: the LLM alone.
        progress: as in `make_release`.

    Raises:
        ArtifactIncomplete, ReleaseMismatch: the release is not whole, or not of this index.
        InvalidInput, Unavailable: as `evaluate`.
    """

    def report(what: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"{what}{when}", done, total)

    recipe = load_recipe_of(folder)
    if baselines == "none":
        recipe = replace(recipe, evaluation=replace(recipe.evaluation, baselines=()))
    wanted = "collaborative" in recipe.evaluation.baselines
    found = Collaborative.load(folder) if wanted else None
    return evaluate(
        database_url=database_url,
        index=index,
        engine=load_engine(
            folder,
            index=index,
            device=device,
            score=score,
            precision=precision,
            collaborative_weight=collaborative_weight,
        ),
        encoder=load_prompt_encoder(folder),
        recipe=recipe,
        collaborative=found[0] if found else None,
        seen=seen_of(folder),
        kept=sasrecs_beside(folder.parent),
        now=now,
        progress=report,
    )
