"""Train a release: data, tokenizer, curriculum, business alignment, release folder.

LEADRE §4.3: explicit alignment, implicit alignment, next ad, then DPO on eCPM. A user's last two positive ads are held
out for validation and test, and so is all that follows the first of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.decoding.load import engine_of
from leadre.domain.behavior import Domain, Impression
from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.histories import split_of, training_histories
from leadre.pipelines.learning.collaborate import calibrate, cross_fit_signal, fit_ranker, fit_signal
from leadre.pipelines.learning.validate import filters_at, validation_of
from leadre.recipe import Recipe
from leadre.retrieval.own_ads import seen_policy
from leadre.store.records.catalog import read_ads
from leadre.store.records.database import connect, transaction
from leadre.store.records.ecpm import read_ecpm_log
from leadre.store.records.events import read_sequences
from leadre.store.records.impressions import liked_impressions
from leadre.training.data.contexts import read_contexts
from leadre.training.data.examples import TrainingData
from leadre.training.data.preferences import (
    PreferenceExample,
    encode_pairs,
    from_candidates,
    from_impressions,
)
from leadre.training.fine_tune import fine_tune
from leadre.training.learner.adapters import adapted
from leadre.training.learner.learner import Learner, fresh_learner, warm_learner
from leadre.training.learner.release_folder import UNTIL, write_release
from leadre.training.objectives.dpo import run_dpo
from leadre.training.objectives.rrhf import run_rrhf
from leadre.training.run.processes import is_main
from leadre.training.run.progress import Progress
from leadre.training.run.reporting import reporting_of
from leadre.training.teacher.make import teacher_rows
from leadre.training.teacher.rows import TeacherRows

CANDIDATE_ADS = 16
"""Of a generated list, the ads that count as likely."""
PAIRS_A_LIST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """The release's folder, and that of the model before business alignment (None when the recipe has none)."""

    folder: Path
    sft_folder: Path | None


def train(
    *,
    database_url: str,
    releases: Path,
    index: AdIndex,
    recipe: Recipe,
    now: datetime,
    name: str | None = None,
    progress: Progress | None = None,
    warm_start: Path | None = None,
    since: datetime | None = None,
) -> TrainingResult:
    """Train a model for an index and write it as a release; with DPO, the model before it as `<name>-sft` too.

    Recording, evaluating and promoting are the caller's. Under `accelerate launch` every process calls this, with the
    same arguments, and the main one writes.

    The collaborative signal is fitted first: it is the LLM's teacher, where the recipe wants one, and the release's.

    With `recipe.sft.checkpoint_steps`, a training that was killed goes on when it is called again with the same name:
    finished stages are not repeated, the running one continues at its newest checkpoint, and the weights are those of
    a training that was never killed. Business alignment starts again.

    Args:
        database_url: the system of record.
        releases: folder of releases.
        index: whose S-IDs the model learns.
        recipe: everything about the training.
        now: later events are not read.
        name: of the release; by default the recipe's name and `now`.
        progress: called as training goes on.
        warm_start: a release of the same index to go on from, for daily training.
        since: learn only from users with a behavior after this instant, for daily training.

    Raises:
        FileExistsError: there is a release of that name.
        InvalidInput: no user has an ad to learn, or none to be validated on when the recipe asks for it.
        ReleaseMismatch: `warm_start` speaks of another index.
        ConfigError: a base model that cannot be used; or an unfinished training of that name with another recipe,
            index or data; or `sft.report_to` names what is not installed.
        Unavailable: the database does not answer.
    """
    folder = releases / (name or f"{recipe.name}-{now:%Y%m%dT%H%M%S}")
    sft_folder = folder.with_name(f"{folder.name}-sft") if recipe.dpo.enabled else None
    unfinished = folder.with_name(f".{folder.name}.training")
    goes_on = recipe.sft.checkpoint_steps > 0 and unfinished.exists()
    for taken in (folder, None if goes_on else sft_folder):  # when it goes on, `sft_folder` is this training's own
        if taken is not None and taken.exists():
            raise FileExistsError(f"{taken} exists; releases are not changed in place, give the new one its own name")
    reporting = reporting_of(recipe.sft.report_to, folder)
    data = read_training_data(database_url=database_url, index=index, recipe=recipe, now=now, since=since)
    learner = warm_learner(recipe, index, warm_start) if warm_start else fresh_learner(recipe, index, data)
    sizes: dict[str, Any] = {
        "parameters": learner.model.num_parameters(),
        "vocabulary": learner.vocabulary.size,
        UNTIL: now.isoformat(),
    }

    def write(target: Path) -> None:
        if not is_main():
            return
        write_release(
            target,
            model=learner.model,
            tokenizer=learner.tokenizer,
            text_tokenizer=learner.text_tokenizer,
            vocabulary=learner.vocabulary,
            recipe=recipe,
            metrics={"training": sizes},
            curves=curves,
            index_version=index.version,
            collaborative=collaborative,
            ranker=ranker.to_json() if ranker else None,
            seen=data.seen,
        )

    collaborative: tuple[Collaborative, float] | None = None
    ranker: Ranker | None = None
    with tempfile.TemporaryDirectory(prefix="leadre-train-") as scratch:
        resumes, taught = recipe.sft.checkpoint_steps > 0, recipe.sft.taught
        signal = None
        if recipe.collaborative.enabled or taught:
            signal = fit_signal(
                database_url=database_url,
                releases=releases,
                recipe=recipe,
                now=now,
                kept=unfinished / "signal" if resumes and taught else None,
                progress=progress,
            )
        curves, of_stages = fine_tune(
            learner,
            data,
            recipe=recipe,
            start=f"{warm_start.name if warm_start else 'a new model'}, index {index.version}",
            work=unfinished if resumes else Path(scratch),
            teach=partial(
                _teach,
                signal=signal,
                index=index,
                recipe=recipe,
                database_url=database_url,
                releases=releases,
                now=now,
                progress=progress,
            ),
            validation=validation_of(learner, data, index=index, recipe=recipe, signal=signal),
            reporting=reporting,
            progress=progress,
        )
        sizes |= of_stages
        if recipe.collaborative.enabled and signal is not None:
            weight = recipe.collaborative.weight
            if weight == "calibrated":
                weight = calibrate(signal, learner, data, index=index, recipe=recipe, progress=progress)
            collaborative = signal, weight
            sizes["collaborative"] = {"co_visitation": signal.share, "weight": weight}
            if recipe.collaborative.combine == "ranker":
                ranker = fit_ranker(
                    engine_of(learner.model, index=index, vocabulary=learner.vocabulary, score=recipe.decoding.score),
                    IndexedSignal(signal, index=index, vocabulary=learner.vocabulary),
                    data,
                    encoder=learner.encoder,
                    recipe=recipe,
                    progress=progress,
                )
                sizes["collaborative"]["ranker"] = ranker.to_json()
        if sft_folder is not None:
            if not sft_folder.exists():
                write(sft_folder)
            liked, ecpm = _read_earnings(database_url=database_url, now=now, data=data)
            if collaborative is not None and recipe.collaborative.ecpm_power:
                signal, weight = collaborative
                collaborative = signal.aligned(ecpm, power=recipe.collaborative.ecpm_power), weight
            pairs = _preference_pairs(
                liked, ecpm, index=index, recipe=recipe, data=data, learner=learner, progress=progress
            )
            sizes["preference_pairs"] = len(pairs)
            if pairs:
                align = run_rrhf if recipe.dpo.method == "rrhf" else run_dpo
                with adapted(learner.model, recipe.model, new_tokens=learner.new_tokens, seed=recipe.dpo.seed):
                    curves += align(
                        learner.model,
                        pairs,
                        recipe=recipe.dpo,
                        sft=recipe.sft,
                        tokenizer=learner.tokenizer,
                        code_blocks=learner.code_blocks,
                        work=Path(scratch),
                        reporting=reporting,
                        progress=progress,
                    )
        write(folder)
    if is_main():
        shutil.rmtree(unfinished, ignore_errors=True)
    return TrainingResult(folder=folder, sft_folder=sft_folder)


def _teach(
    folder: Path,
    data: TrainingData,
    *,
    signal: Collaborative | None,
    index: AdIndex,
    recipe: Recipe,
    database_url: str,
    releases: Path,
    now: datetime,
    progress: Progress | None,
) -> TeacherRows:
    """Return what the signal teaches of the data's targets, made in a folder or found there."""
    if signal is None:
        raise InvalidInput("a recipe whose sft.taught is set needs the collaborative signal to teach; fit it first")

    def teacher() -> CrossFitted:
        return cross_fit_signal(
            signal, database_url=database_url, releases=releases, recipe=recipe, now=now, progress=progress
        )

    return teacher_rows(
        folder, data, teacher=teacher, index=index, temperature=recipe.sft.distil.temperature, progress=progress
    )


def read_training_data(
    *, database_url: str, index: AdIndex, recipe: Recipe, now: datetime, since: datetime | None = None
) -> TrainingData:
    """Read what the tasks make examples of. The arguments are those of `train`.

    Raises:
        InvalidInput: no user has an ad to learn.
        Unavailable: the database does not answer.
    """
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            ads = read_ads(connection)
            sequences = read_sequences(connection, until=now)
            contexts = read_contexts(connection, sequences, recipe=recipe.prompt)
    finally:
        engine.dispose()
    sids = {ad_id: index.sid_at(row) for row, ad_id in enumerate(index.ad_ids.tolist())}
    behaviors = [contexts.behaviors(user) for user in range(len(sequences.users))]
    split = split_of(sequences, recipe.evaluation)
    targets = [
        [at for at, behavior in enumerate(rows[:seen]) if behavior.domain is Domain.AD and behavior.item_id in sids]
        if since is None or rows[-1].occurred_at > since
        else []
        for rows, seen in zip(behaviors, (split.learn_until - sequences.offsets[:-1]).tolist(), strict=True)
    ]
    if not any(targets):
        raise InvalidInput(
            f"no user has a click or conversion on an ad of index {index.version} that is not held out, so there is "
            "nothing to learn; import behaviors, or build the index of these ads"
        )
    held_out = split.validation - sequences.offsets[split.users]
    return TrainingData(
        ads=[ad for ad in ads if ad.ad_id in sids],
        sequences=behaviors,
        targets=targets,
        contexts=contexts,
        sid_of=sids.get,
        recipe=recipe.prompt,
        seed=recipe.sft.seed,
        validation=list(zip(split.users.tolist(), held_out.tolist(), strict=True)),
        seen=seen_policy(recipe.decoding, training_histories(sequences, split).train),
    )


def _read_earnings(
    *, database_url: str, now: datetime, data: TrainingData
) -> tuple[list[Impression], dict[int, float]]:
    """Return the impressions that were clicked or converted, and the eCPM of each ad."""
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            liked = liked_impressions(connection, before=now)
            log = read_ecpm_log(connection, before=now)
    finally:
        engine.dispose()
    return liked, log.ecpm_of({ad.ad_id: ad.bid for ad in data.ads})


def _preference_pairs(
    liked: Sequence[Impression],
    ecpm: Mapping[int, float],
    *,
    index: AdIndex,
    recipe: Recipe,
    data: TrainingData,
    learner: Learner,
    progress: Progress | None,
) -> Sequence[PreferenceExample]:
    """Return pairs of ads that the model itself finds likely, filled up with pairs that the log says were clicked.

    Generated pairs first: they are where the model decides, and raise eCPM more for the hit ratio they cost.
    """
    limit = recipe.dpo.max_pairs
    candidates = _candidates(index, recipe, data=data, learner=learner, progress=progress)
    pairs = from_candidates(candidates, ecpm, data, pairs_each=PAIRS_A_LIST, seed=recipe.dpo.seed)[:limit]
    if len(pairs) < limit:
        user_numbers = {rows[0].user_id: number for number, rows in enumerate(data.sequences) if rows}
        logged = from_impressions(liked, data, user_numbers=user_numbers)
        order = np.random.default_rng(recipe.dpo.seed).permutation(len(logged))[: limit - len(pairs)]
        pairs += [logged[at] for at in order.tolist()]
    return encode_pairs(pairs, data, learner.encoder, limit=recipe.dpo.max_pairs, seed=recipe.dpo.seed)


def _candidates(
    index: AdIndex, recipe: Recipe, *, data: TrainingData, learner: Learner, progress: Progress | None
) -> list[tuple[int, int, list[int]]]:
    """Return (user, position, likeliest ads) for the newest target of as many users as the pairs need."""
    engine = engine_of(learner.model, index=index, vocabulary=learner.vocabulary, score=recipe.decoding.score)
    users = np.flatnonzero([bool(positions) for positions in data.targets])
    lists = ceil(recipe.dpo.max_pairs / PAIRS_A_LIST)
    users = np.sort(np.random.default_rng(recipe.dpo.seed).permutation(users)[:lists])
    batch, made = recipe.evaluation.batch_users, []
    for start in range(0, len(users), batch):
        places = [(user, data.targets[user][-1]) for user in users[start : start + batch].tolist()]
        prompts = [learner.encoder.encode(data.prompt(*place, augment=False)) for place in places]
        found = engine.generate(prompts, beam_width=CANDIDATE_ADS, filters=filters_at(places, data, index=index))
        for place, beams in zip(places, found, strict=True):
            made.append((*place, [beam.ad_id for beam in beams]))
        if progress is not None:
            progress("generate candidates", min(start + batch, len(users)), len(users))
    return made
