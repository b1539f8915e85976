"""Two ways to combine the LLM's list with the collaborative signal's, beside either alone.

Ours; the paper has no such signal (leadre.decoding.exact.fusion, leadre.decoding.combined). A release is asked: its
model, its signal and its share in the beam are taken as they are, a ranker is fitted on its validation users.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.decoding.combined.engine import RankedEngine
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.decoding.load import load_engine
from leadre.errors import ConfigError
from leadre.evaluation.ranking import gains, hits, ranks_of
from leadre.experiments.ablation import Trials
from leadre.experiments.result import Experiment, Measured, tabulate
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.collaborate import fit_ranker
from leadre.pipelines.learning.evaluate import answer
from leadre.pipelines.learning.measures import LEADRE, Answers
from leadre.pipelines.learning.train import read_training_data
from leadre.recipe import Recipe
from leadre.training.learner.release_folder import load_prompt_encoder, load_recipe_of, open_release, seen_of

SIGNAL, LLM, BEAM, RANKER = "signal alone", "LLM alone", "fusion in the beam", "ranker"
CUTOFF = 10


def combined(recipe: Recipe, trials: Trials, *, release: Path) -> tuple[Experiment, ...]:
    """Measure a release's LLM, its signal and both combinations on the same users.

    Args:
        recipe: its `evaluation` says who is asked, `collaborative.calibration_users` whom the ranker is fitted on; the
            rest is the release's.
        trials: where the data is; the seeds do not count.
        release: folder of a release with a collaborative signal.

    Returns:
        One table: HR@10 and NDCG@10 in the three orders of ties, HR@10 of the slices, differences from the signal.

    Raises:
        ConfigError: the release has no collaborative signal.
        ArtifactIncomplete, ReleaseMismatch, InvalidInput, Unavailable: as `leadre.pipelines.learning.evaluate`.
    """
    found = Collaborative.load(release)
    if found is None:
        raise ConfigError(f"{release.name} has no collaborative signal; train one with collaborative.enabled=true")
    signal, weight = found
    index = AdIndex.load(trials.indexes / open_release(release).facts["index_version"])
    its, encoder = load_recipe_of(release), load_prompt_encoder(release)
    asked = replace(its, evaluation=replace(recipe.evaluation, baselines=("collaborative",)))
    alone = load_engine(
        release, index=index, device=trials.device, precision=trials.precision, collaborative_weight=0.0
    )
    indexed = IndexedSignal(signal, index=index, vocabulary=encoder.vocabulary)
    data = read_training_data(database_url=trials.database_url, index=index, recipe=its, now=trials.now)
    ranker = fit_ranker(
        alone,
        indexed,
        dataclasses.replace(data, seen=seen_of(release)),
        encoder=encoder,
        recipe=replace(asked, collaborative=recipe.collaborative),
        progress=trials.progress,
    )
    engines = {
        LLM: alone,
        BEAM: load_engine(
            release, index=index, device=trials.device, precision=trials.precision, collaborative_weight=weight
        ),
        RANKER: RankedEngine(alone, signal=indexed, ranker=ranker),
    }
    measured: dict[str, Measured] = {}
    for name, engine in engines.items():
        answers = answer(
            database_url=trials.database_url,
            index=index,
            engine=engine,
            encoder=encoder,
            recipe=asked,
            collaborative=signal,
            seen=seen_of(release),
            now=trials.now,
            progress=trials.progress,
        )
        if not measured:
            measured[SIGNAL] = _columns(answers, system="collaborative")
        measured[name] = _columns(answers, system=LEADRE)
    table = tabulate(
        measured,
        name="combined",
        title="LLM and collaborative signal: a share in the beam, or a ranker of both lists",
        note=f"release {release.name}, the signal has {weight:.2f} of the score in the beam",
        seeds=(0,),
        metrics=measured[SIGNAL].metrics,
        paper={},
        pairs=[(RANKER, BEAM)],
        seed=recipe.evaluation.seed,
    )
    return (dataclasses.replace(table, extra={"weight": weight, "ranker": ranker.to_json()}),)


def _columns(answers: Answers, *, system: str) -> Measured:
    """Return each user's figures in every order of ties and, as the data is, in every slice; NaN outside of it."""
    split = answers.split
    canonical, shuffled = (
        ranks_of(data.item_ids[split.test], lists)
        for data, lists in zip(answers.data, answers.lists[system], strict=True)
    )
    everyone = np.ones(len(split.users), np.bool_)
    views = {"canonical": (canonical, everyone), "untied": (canonical, ~split.tied), "shuffled": (shuffled, everyone)}
    columns: dict[str, NDArray[np.float64]] = {}
    for view, (ranks, users) in views.items():
        for name, figure in (("HR", hits), ("NDCG", gains)):
            columns[f"{name}@{CUTOFF} {view}"] = np.where(users, figure(ranks, CUTOFF), np.nan)
    for name, users in answers.sliced.items():
        columns[f"HR@{CUTOFF} {name}"] = np.where(users, hits(canonical, CUTOFF), np.nan)
    return Measured(metrics=tuple(columns), values=np.stack(list(columns.values()), axis=1)[None])
