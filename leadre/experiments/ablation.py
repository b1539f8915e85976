"""Train variants of a recipe over several seeds, and keep every user's figures of each.

LEADRE §5.2. Nothing is recorded: the models lie in a scratch folder until they are measured. Their figures are kept,
under a name made of the recipe, the index and the data, so that rows that experiments share are trained once, and an
experiment that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from leadre.decoding.load import Precision, load_engine
from leadre.experiments.result import Measured
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.build import index_ads, version_of
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.texts.description import describe
from leadre.pipelines.histories import sasrecs_beside
from leadre.pipelines.index.build import embed, embedding_store
from leadre.pipelines.index.fit_codebooks import fit_rows
from leadre.pipelines.index.publish import is_whole
from leadre.pipelines.learning.evaluate import answer
from leadre.pipelines.learning.measures import by_user
from leadre.pipelines.learning.train import train
from leadre.recipe import IndexRecipe, Recipe, encode_recipe
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.ecpm import ecpm_is_simulated, read_ecpm_log
from leadre.store.records.events import read_sequences
from leadre.training.learner.release_folder import load_prompt_encoder, seen_of

Progress = Callable[[str, int, int | None], None]

CUTOFFS = (1, 4, 8)
"""K of the paper's tables. All experiments measure them all, so that they can share trainings."""
_ALL = "all trainings, %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one row trains.

    Args:
        recipe: everything about it but the seeds.
        after: the variant whose model this one aligns (§4.3.2), instead of training one; empty: it trains its own.
    """

    recipe: Recipe
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What all trainings of an experiment have in common.

    Args:
        database_url: the system of record.
        indexes: folder of index artifacts: one that is there is not built again; none is added.
        kept: folder in which the figures are kept.
        now: later events are not read.
        seeds: added to the recipe's; one training each.
        device: on which the models are measured, as torch names it.
        precision: of the measured models.
        progress: called with what is being done, how much is done, and how much there is.
    """

    database_url: str
    indexes: Path
    kept: Path
    now: datetime
    seeds: tuple[int, ...]
    device: str = "cpu"
    precision: Precision = "fp32"
    progress: Progress | None = None


def fine_tuned(recipe: Recipe) -> Recipe:
    """Return the recipe as the paper's tables have it: no business alignment, no collaborative signal, no variety."""
    return replace(
        recipe,
        index=replace(recipe.index, signal="text"),
        dpo=replace(recipe.dpo, enabled=False),
        decoding=replace(recipe.decoding, variety=0.0),
        collaborative=replace(recipe.collaborative, enabled=False, combine="beam"),
        evaluation=replace(recipe.evaluation, cutoffs=CUTOFFS, baselines=()),
    )


def run_variants(variants: Mapping[str, Variant], trials: Trials) -> dict[str, Measured]:
    """Train and measure every variant with every seed.

    Args:
        variants: by row; one that aligns another comes after it.
        trials: what they have in common.

    Returns:
        Row to its figures, `leadre.pipelines.learning.measures.by_user` for every seed.

    Raises:
        InvalidInput, ConfigError, Unavailable: as `train`, `evaluate` and `build_index`.
    """
    data = _data_mark(trials)
    indexes: dict[str, AdIndex] = {}
    names: dict[str, tuple[str, ...]] = {}
    values: dict[str, list[NDArray[np.float64]]] = {row: [] for row in variants}
    count = len(variants) * len(trials.seeds)
    for turn, seed in enumerate(trials.seeds):
        with tempfile.TemporaryDirectory(prefix="leadre-experiment-") as scratch:
            trainings = _Trainings(variants, trials, seed=seed, data=data, folder=Path(scratch), indexes=indexes)
            for place, row in enumerate(variants):
                done = turn * len(variants) + place

                def report(percent: float, done: int = done) -> None:
                    if trials.progress is not None:
                        trials.progress(_ALL, int((100 * done + percent) / count), 100)

                report(0)
                names[row], found = trainings.figures(row, report)
                values[row].append(found)
                report(100)
    return {row: Measured(metrics=names[row], values=np.stack(found)) for row, found in values.items()}


def simulated_ecpm(trials: Trials) -> bool:
    """Say whether the eCPM of the data rests on simulated values."""
    engine = connect(trials.database_url)
    try:
        with transaction(engine) as connection:
            return ecpm_is_simulated(connection)
    finally:
        engine.dispose()


class _Trainings:
    """One seed's trainings in a scratch folder, each made when its figures or its model are asked for."""

    def __init__(
        self,
        variants: Mapping[str, Variant],
        trials: Trials,
        *,
        seed: int,
        data: str,
        folder: Path,
        indexes: dict[str, AdIndex],
    ) -> None:
        self._variants, self._trials, self._seed, self._data = variants, trials, seed, data
        self._folder, self._indexes = folder, indexes
        self._places = {row: folder / f"m{place}" for place, row in enumerate(variants)}
        self._aligned = {variant.after for variant in variants.values()}

    def figures(self, row: str, report: Callable[[float], None]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return a row's metrics and its users' figures, float64[n, metrics]."""
        recipe, index = self._recipe(row), self._index(row)
        kept = self._trials.kept / f"{self._key(row)}.npz"
        progress = _OneBar(f"{row}, seed {self._seed}", recipe, self._trials.progress, report)
        if not kept.is_file():
            folder = self._model(row, progress)
            found = answer(
                database_url=self._trials.database_url,
                index=index,
                engine=load_engine(folder, index=index, device=self._trials.device, precision=self._trials.precision),
                encoder=load_prompt_encoder(folder),
                recipe=recipe,
                seen=seen_of(folder),
                kept=sasrecs_beside(self._trials.indexes),
                now=self._trials.now,
                progress=progress,
            )
            names, values = by_user(found)
            self._trials.kept.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(".unfinished")
            with unfinished.open("wb") as file:
                np.savez(file, metrics=np.array(names), values=values)
            unfinished.replace(kept)
            if row not in self._aligned:
                shutil.rmtree(folder)
        progress.finish()
        with np.load(kept, allow_pickle=False) as stored:
            return tuple(stored["metrics"].tolist()), stored["values"]

    def _model(self, row: str, progress: Progress) -> Path:
        """Return the release folder of a row, which is trained unless it is there."""
        place, after = self._places[row], self._variants[row].after
        if not place.exists():
            train(
                database_url=self._trials.database_url,
                releases=self._folder,
                index=self._index(row),
                recipe=self._recipe(row),
                now=self._trials.now,
                name=place.name,
                progress=progress,
                warm_start=self._model(after, progress) if after else None,
            )
        return place

    def _recipe(self, row: str) -> Recipe:
        recipe = self._variants[row].recipe
        sft = replace(recipe.sft, seed=recipe.sft.seed + self._seed, checkpoint_steps=0)
        if self._variants[row].after:
            # the model that it goes on from has learnt the tasks
            sft = replace(sft, curriculum=(), epochs=(), validate_users=0, patience=0)
        return replace(recipe, sft=sft, dpo=replace(recipe.dpo, seed=recipe.dpo.seed + self._seed))

    def _index(self, row: str) -> AdIndex:
        recipe = self._variants[row].recipe.index
        name = json.dumps(encode_recipe(self._variants[row].recipe)["index"])
        if name not in self._indexes:
            self._indexes[name] = index_of(recipe, self._trials)
        return self._indexes[name]

    def _key(self, row: str) -> str:
        recipe = encode_recipe(self._recipe(row))
        del recipe["name"]
        if not recipe["dpo"]["enabled"]:
            del recipe["dpo"]
        after = self._variants[row].after
        made_of = [recipe, self._index(row).version, self._key(after) if after else "", self._data]
        made_of += [self._trials.precision]
        return hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=12).hexdigest()


class _OneBar:
    """Turns the progress of all steps of one training and its evaluation into the percentage of one bar."""

    def __init__(self, name: str, recipe: Recipe, progress: Progress | None, report: Callable[[float], None]) -> None:
        self._name, self._progress, self._report = name, progress, report
        self._steps = len(recipe.sft.curriculum) + 2 * recipe.dpo.enabled + 1
        self._seen: list[str] = []

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if what not in self._seen:
            self._seen.append(what)
        if total:
            self._tell(min(99.0, 100 * (len(self._seen) - 1 + done / total) / max(self._steps, len(self._seen))))

    def finish(self) -> None:
        """Say that all is done."""
        self._tell(100)

    def _tell(self, percent: float) -> None:
        self._report(percent)
        if self._progress is not None:
            self._progress(self._name, int(percent), 100)


def index_of(recipe: IndexRecipe, trials: Trials) -> AdIndex:
    """Return the index of the catalog's ads by this recipe, from their texts: the one that is built, else in memory.

    Raises:
        InvalidInput, ConfigError, Unavailable: as `leadre.pipelines.index.build.build_index`.
    """
    engine = connect(trials.database_url)
    try:
        with transaction(engine) as connection:
            ads = read_ads(connection)
    finally:
        engine.dispose()
    version = version_of(ads, recipe)
    if is_whole(trials.indexes / version):
        return AdIndex.load(trials.indexes / version)
    store = embedding_store(trials.indexes, recipe)
    embeddings = embed([describe(ad) for ad in ads], recipe, store=store, progress=trials.progress)
    fitted_on = embeddings[fit_rows(len(ads), seed=recipe.seed)]
    quantiser = fit_quantiser(fitted_on, recipe, progress=trials.progress)
    return index_ads(ads, embeddings, quantiser, version=version, assignment=recipe.assignment)


def _data_mark(trials: Trials) -> str:
    """Return a digest of the behaviors and of what impressions earned, as of `now`."""
    engine = connect(trials.database_url)
    try:
        with transaction(engine) as connection:
            data = read_sequences(connection)
            earned = read_ecpm_log(connection)
    finally:
        engine.dispose()
    newest = float(data.occurred_at_s.max(initial=0.0))
    mark = hashlib.blake2b(str(min(trials.now.timestamp(), newest)).encode(), digest_size=12)
    for column in (data.users, data.offsets, data.item_ids, data.domains, data.actions, data.occurred_at_s):
        mark.update(np.ascontiguousarray(column).tobytes())
    for values in (earned.ad_ids, earned.means):
        mark.update(values.tobytes())
    return mark.hexdigest()
