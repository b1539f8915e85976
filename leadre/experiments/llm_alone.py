"""What the LLM is worth: alone, fused with the collaborative signal as its release serves it, and beside the signal.

Ours; LEADRE §3.4 decodes by the LLM alone, §5.1 measures HR and NDCG. Asked of releases that are there, one or one a
seed; nothing is trained. Beside all users: cold ads, which a model of ids cannot retrieve, short histories, and targets
that a seen transition leads to or none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.decoding.combined.engine import CANDIDATES
from leadre.decoding.combined.features import gather
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.engine import Engine
from leadre.decoding.load import Precision, load_engine, load_signal
from leadre.errors import InvalidInput
from leadre.evaluation.bootstrap import Interval, pooled_intervals
from leadre.evaluation.ranking import gains, hits, ranks_of
from leadre.evaluation.slices import by_knowledge
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.questions import Lists, Progress, Questions, ask
from leadre.recipe import Recipe
from leadre.retrieval.own_ads import without
from leadre.store.records.database import connect, transaction
from leadre.store.records.events import read_sequences
from leadre.training.data.contexts import read_contexts
from leadre.training.learner.release_folder import load_prompt_encoder, load_recipe_of, open_release, seen_of

CUTOFF = 10
SYSTEMS = ("llm", "fused", "signal")
METRICS = ("r10", "n10")
GROUPS = {
    "cold": "cold_ads",
    "short": "short_histories",
    "unseen_transition": "unseen_transitions",
    "seen_transition": "seen_transitions",
}
"""Groups of users, as they are printed, by the slices of `leadre.evaluation.slices`."""
VIEWS = ("canonical", "untied", "shuffled")
_SAMPLED = 1000
"""Users whose weights are asked of a ranker (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """R@10 of some of the users: of each system, and of fused minus signal, with 95 % intervals."""

    users: int
    r10: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One order of ties.

    Args:
        means: "llm_r10", "llm_n10", "fused_r10" and so on: over users and releases, with 95 % intervals.
        seed_sd: standard deviation of the releases' means, by the same names; empty with one release.
        fused_minus_signal: by metric, paired by user.
        groups: by the names of `GROUPS`.
    """

    means: Mapping[str, Interval]
    seed_sd: Mapping[str, float]
    fused_minus_signal: Mapping[str, Interval]
    groups: Mapping[str, Group]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form: one level of names, "fused_minus_signal" that of R@10."""
        r10, n10 = (self.fused_minus_signal[metric].to_json() for metric in METRICS)
        plain: dict[str, Any] = {name: interval.mean for name, interval in self.means.items()}
        plain |= {f"{name}_sd": spread for name, spread in self.seed_sd.items()}
        plain |= {"intervals": {name: interval.to_json() for name, interval in self.means.items()}}
        plain |= {"fused_minus_signal": r10, "fused_minus_signal_n10": n10}
        for name, group in self.groups.items():
            figures = {system: interval.to_json() for system, interval in group.r10.items()}
            plain[f"{name}_r10"] = {"users": group.users, **figures}
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmAlone:
    """What was found.

    Args:
        releases: their names.
        users: how many were asked.
        tied: how many of them have both held-out ads at one time.
        llm_shares: of each release, the LLM's share of the fused score; by a ranker, the mean over users.
        views: by the names of `VIEWS`.
    """

    releases: tuple[str, ...]
    users: int
    tied: int
    llm_shares: tuple[float, ...]
    views: Mapping[str, View]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form; the figures of the canonical view also stand at its top."""
        views = {name: view.to_json() for name, view in self.views.items()}
        return {
            "releases": list(self.releases),
            "users": self.users,
            "tied": self.tied,
            "llm_share": float(np.mean(self.llm_shares)),
            "llm_shares": list(self.llm_shares),
            **views["canonical"],
            **views,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """One release's lists by system, and the questions they answer."""

    questions: Questions
    llm_share: float
    lists: Mapping[str, Lists]


def llm_alone(
    releases: Sequence[Path],
    *,
    database_url: str,
    indexes: Path,
    now: datetime,
    device: str = "cpu",
    precision: Precision = "fp32",
    max_users: int | None = None,
    progress: Progress | None = None,
) -> LlmAlone:
    """Ask releases with a collaborative signal for the test ads of all users, each in three ways.

    Args:
        releases: folders, for example those of trainings that differ by their seed.
        database_url: the system of record.
        indexes: folder of index artifacts.
        now: later behaviors are not read.
        device: where the models run, as torch names it.
        precision: of their weights and activations.
        max_users: ask a seeded sample of so many (0: all) in place of the recipe's number.
        progress: called with what is done.

    Raises:
        InvalidInput: a release has no collaborative signal, or they are evaluated on different users.
        ArtifactIncomplete, ReleaseMismatch: a release or its index is not whole.
        Unavailable: the database does not answer.
    """
    answered = []
    for folder in releases:
        recipe = load_recipe_of(folder)
        index = AdIndex.load(indexes / open_release(folder).facts["index_version"])
        questions = _questions(folder, recipe, database_url=database_url, index=index, now=now, max_users=max_users)
        answered.append(_answered(folder, recipe, questions, device=device, precision=precision, progress=progress))
        first, split = answered[0].questions.split, questions.split
        if not (np.array_equal(first.users, split.users) and np.array_equal(first.test, split.test)):
            raise InvalidInput(
                f"{folder.name} is evaluated on other users or ads than {releases[0].name}; compare releases whose "
                "recipes have one evaluation.split, max_users and seed"
            )
    questions = answered[0].questions
    return LlmAlone(
        releases=tuple(folder.name for folder in releases),
        users=len(questions.split.users),
        tied=int(questions.split.tied.sum()),
        llm_shares=tuple(each.llm_share for each in answered),
        views=_views(answered, seed=load_recipe_of(releases[0]).evaluation.seed),
    )


def _questions(
    folder: Path, recipe: Recipe, *, database_url: str, index: AdIndex, now: datetime, max_users: int | None
) -> Questions:
    encoder = load_prompt_encoder(folder)
    asked = recipe.evaluation if max_users is None else replace(recipe.evaluation, max_users=max_users)
    database = connect(database_url, application_name="leadre experiment")
    try:
        with transaction(database) as connection:
            sequences = read_sequences(connection, until=now)
            contexts = read_contexts(connection, sequences, recipe=encoder.recipe)
    finally:
        database.dispose()
    return ask(sequences, contexts, index=index, encoder=encoder, recipe=asked, seen=seen_of(folder))


def _answered(
    folder: Path,
    recipe: Recipe,
    questions: Questions,
    *,
    device: str,
    precision: Precision,
    progress: Progress | None,
) -> _Answered:
    found = Collaborative.load(folder)
    if found is None:
        raise InvalidInput(
            f"{folder.name} has no collaborative signal to be compared with: `leadre evaluate` measures the LLM alone; "
            "train with collaborative.enabled = true"
        )
    signal, weight = found
    ranker = Ranker.load(folder)
    share_of_llm = 1.0 - weight
    width, batch = max(CUTOFF, recipe.decoding.beam_width), recipe.evaluation.batch_users
    lists: dict[str, Lists] = {}
    for system, share in (("llm", 0.0), ("fused", None)):
        if system == "fused" and weight == 0.0 and ranker is None:
            lists[system] = lists["llm"]  # validation gave the signal no say
            continue
        engine = load_engine(
            folder,
            index=questions.index,
            device=device,
            precision=precision,
            collaborative_weight=share,
        )
        what = f"{folder.name}: {'the LLM alone' if system == 'llm' else 'fused'}"
        lists[system] = questions.answers(engine, width=width, batch=batch, what=what, progress=progress)
        if system == "llm" and ranker is not None:
            share_of_llm = _share_by(ranker, folder, engine, questions, batch=batch)
    seen = questions.learnt.train.seen
    lists["signal"] = questions.by_history(partial(signal.top, k=width, seen=seen))
    return _Answered(questions=questions, llm_share=share_of_llm, lists=lists)


def _share_by(ranker: Ranker, folder: Path, engine: Engine, questions: Questions, *, batch: int) -> float:
    """Return the mean of what a ranker gives the LLM, over a sample of the users."""
    signal = load_signal(folder, index=questions.index, vocabulary=load_prompt_encoder(folder).vocabulary)
    sample = np.random.default_rng(0).permutation(len(questions.split.users))[:_SAMPLED]
    given = []
    for start in range(0, len(sample), batch):
        rows = sample[start : start + batch].tolist()
        candidates = gather(
            engine,
            signal,
            [questions.prompts[at] for at in rows],
            each=CANDIDATES,
            filters=without([None] * len(rows), [questions.own[at] for at in rows], leaves=len(questions.index)),
        )
        given.append(1.0 - ranker.weights(candidates.user))
    return float(np.concatenate(given).mean())


def _views(answered: Sequence[_Answered], *, seed: int) -> dict[str, View]:
    questions = answered[0].questions
    everyone = np.ones(len(questions.split.users), np.bool_)
    views = {}
    for name, order, chosen in (
        ("canonical", 0, everyone),
        ("untied", 0, ~questions.split.tied),
        ("shuffled", 1, everyone),
    ):
        target = questions.targets[order]
        values = np.stack([_values(each, order) for each in answered])
        groups = by_knowledge(targets=target, train=questions.learnt.train, before=questions.before[order])
        views[name] = _view(
            values[:, chosen], {short: groups[full][chosen] for short, full in GROUPS.items()}, seed=seed
        )
    return views


def _values(answered: _Answered, order: int) -> NDArray[np.float64]:
    """Return each user's figures, float64[users, metrics x systems]: R@10 of all systems, then N@10."""
    target = answered.questions.targets[order]
    ranks = [ranks_of(target, answered.lists[system][order]) for system in SYSTEMS]
    return np.stack([figure(rank, CUTOFF) for figure in (hits, gains) for rank in ranks], axis=1)


def _view(values: NDArray[np.float64], groups: Mapping[str, NDArray[np.bool_]], *, seed: int) -> View:
    """Measure one order of ties.

    Args:
        values: float64[releases, users, metrics x systems].
        groups: name to bool[users].
        seed: of the intervals.
    """
    names = [f"{system}_{metric}" for metric in METRICS for system in SYSTEMS]
    by_release = values.mean(axis=1)
    fused, signal = SYSTEMS.index("fused"), SYSTEMS.index("signal")
    gained = np.stack(
        [values[..., at + fused] - values[..., at + signal] for at in range(0, len(names), len(SYSTEMS))], axis=-1
    )
    found = {}
    for name, chosen in groups.items():
        r10 = np.concatenate([values[:, chosen, : len(SYSTEMS)], gained[:, chosen, :1]], axis=-1)
        figures = zip((*SYSTEMS, "fused_minus_signal"), pooled_intervals(r10, seed=seed), strict=True)
        found[name] = Group(users=int(chosen.sum()), r10=dict(figures))
    spread = by_release.std(axis=0, ddof=1).tolist() if len(values) > 1 else []
    return View(
        means=dict(zip(names, pooled_intervals(values, seed=seed), strict=True)),
        seed_sd=dict(zip(names, spread, strict=False)),
        fused_minus_signal=dict(zip(METRICS, pooled_intervals(gained, seed=seed), strict=True)),
        groups=found,
    )
