"""Figures of an evaluation: hit ratios by system, view and slice, and what the top of the lists looks like.

LEADRE §5.1.2 (HR@K, NDCG@K, over ads), §5.2.3 (diversity, eCPM, LTRR@K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.evaluation.bootstrap import Interval, intervals, paired_differences
from leadre.evaluation.diversity import (
    diversity,
    diversity_by_user,
    ltr_recall,
    ltr_recall_by_user,
    mean_ecpm,
    mean_ecpm_by_user,
    mix_distances,
)
from leadre.evaluation.ranking import ABSENT, gains, hits, ranks_of
from leadre.evaluation.split import Split
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.category_level import CategoryLevel, telling_categories
from leadre.pipelines.histories import ad_histories
from leadre.recipe import EvaluationRecipe
from leadre.store.records.events import Sequences

LEADRE = "leadre"
LIST_CUTOFF = 8
"""Ads of a list that diversity and eCPM look at."""
LTRR_CUTOFFS = (4, LIST_CUTOFF)
"""K of LTRR@K (paper: 4, 8)."""
LTR_LABELS = 8
"""LTRR's labels are so many ads of a user (ours; the paper names no number)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What the top of the lists looks like (§5.2.3).

    Args:
        concentration, abundance, diversity: of the ads' categories, at the evaluation's `category_level`.
        mix_distance: mean distance of a list's mix of categories from that of the user's ads before, 0 to 1.
        mean_ecpm: in currency units per 1,000 impressions.
        ltrr: "LTRR@4", "LTRR@8": recall of the ads that the live system's ranking chose for the user, which are the
            `LTR_LABELS` of the highest eCPM that were shown since the first held-out ad; empty without impressions.
    """

    concentration: float
    abundance: float
    diversity: float
    mix_distance: float
    mean_ecpm: float
    ltrr: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Figures of some of the users, in the canonical view, at the largest cutoff: by system, then metric."""

    users: int
    metrics: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures of a release and of the baselines.

    Args:
        users: how many were evaluated.
        tied: how many of them have both held-out ads at one time.
        cutoffs: K, ascending.
        metrics: system, view and metric ("HR@10", "NDCG@10") to its mean and 95 % interval.
        differences: baseline and metric to the canonical view's "release minus baseline".
        slices: name (see leadre.evaluation.slices) to its users' figures.
        lists: system to its lists' diversity and eCPM.
        category_level: the level of categories that tells the index's ads apart; that of `lists`.
        simulated_ecpm: whether the eCPM rests on simulated values.
    """

    users: int
    tied: int
    cutoffs: tuple[int, ...]
    metrics: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    differences: Mapping[str, Mapping[str, Interval]]
    slices: Mapping[str, Slice]
    lists: Mapping[str, Lists]
    category_level: CategoryLevel
    simulated_ecpm: bool

    def mean(self, metric: str, *, system: str = LEADRE, view: str = "canonical") -> float:
        """Return one figure's mean, for example `mean("HR@8")`."""
        return self.metrics[system][view][metric].mean

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, for metrics.json and the report."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Lists of ads of every system for the evaluated users, and what they are measured by.

    Args:
        lists: system to its int64[n, K], ads best first, padded with `ABSENT`; as the data is, and with ties shuffled.
            LEADRE's come first.
        split: of the n users.
        data: the behaviors, as they are and with ties shuffled.
        index: knows the ads' categories.
        ecpm: of ads, by id.
        labels: each user's ads for LTRR; empty lists without impressions.
        sliced: name to bool[n].
        recipe: its cutoffs and the seed of the intervals.
        simulated_ecpm: whether `ecpm` rests on simulated values.
    """

    lists: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    split: Split
    data: tuple[Sequences, Sequences]
    index: AdIndex
    ecpm: Mapping[int, float]
    labels: Sequence[Sequence[int]]
    sliced: Mapping[str, NDArray[np.bool_]]
    recipe: EvaluationRecipe
    simulated_ecpm: bool


def measure(answers: Answers) -> Evaluation:
    """Measure lists of ads over all users."""
    recipe, split = answers.recipe, answers.split
    cutoffs, seed = tuple(sorted(set(recipe.cutoffs))), recipe.seed
    names = [f"{metric}@{cutoff}" for metric in ("HR", "NDCG") for cutoff in cutoffs]
    largest = [len(cutoffs) - 1, 2 * len(cutoffs) - 1]
    figures = {}
    for system, pair in answers.lists.items():
        canonical, shuffled = (
            _by_user(ranks_of(sequences.item_ids[split.test], made), cutoffs)
            for sequences, made in zip(answers.data, pair, strict=True)
        )
        figures[system] = {"canonical": canonical, "untied": canonical[~split.tied], "shuffled": shuffled}

    def named(found: list[Interval]) -> dict[str, Interval]:
        return dict(zip(names, found, strict=True))

    def of_slice(chosen: NDArray[np.bool_]) -> Slice:
        metrics = {}
        for system, views in figures.items():
            found = intervals(views["canonical"][chosen][:, largest], seed=seed)
            metrics[system] = {names[at]: interval for at, interval in zip(largest, found, strict=True)}
        return Slice(users=int(chosen.sum()), metrics=metrics)

    ours = figures[LEADRE]["canonical"]
    return Evaluation(
        users=len(split.users),
        tied=int(split.tied.sum()),
        cutoffs=cutoffs,
        metrics={
            system: {view: named(intervals(values, seed=seed)) for view, values in views.items()}
            for system, views in figures.items()
        },
        differences={
            system: named(paired_differences(ours, views["canonical"], seed=seed))
            for system, views in figures.items()
            if system != LEADRE
        },
        slices={name: of_slice(chosen) for name, chosen in answers.sliced.items()},
        lists={system: _describe(made, answers) for system, (made, _) in answers.lists.items()},
        category_level=telling_categories(answers.index).level,
        simulated_ecpm=answers.simulated_ecpm,
    )


def _by_user(ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack([metric(ranks, cutoff) for metric in (hits, gains) for cutoff in cutoffs], axis=1)


def by_user(answers: Answers, *, system: str = LEADRE) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return each user's own figures of one system in the canonical view: names, and float64[n, metrics].

    HR@K and NDCG@K of the recipe's cutoffs; then, of the first `LIST_CUTOFF` ads, "diversity", "concentration",
    "abundance", "mix distance", "eCPM" and "LTRR@4", "LTRR@8". NaN where a user has no such figure (an empty list, no
    labels).
    """
    cutoffs = tuple(sorted(set(answers.recipe.cutoffs)))
    lists, _ = answers.lists[system]
    names = [f"{metric}@{cutoff}" for metric in ("HR", "NDCG") for cutoff in cutoffs]
    hit = _by_user(ranks_of(answers.data[0].item_ids[answers.split.test], lists), cutoffs)
    categories, worth = _categories_and_worth(lists[:, :LIST_CUTOFF], answers)
    varied = diversity_by_user(categories)
    columns = {
        "diversity": varied[:, 2],
        "concentration": varied[:, 0],
        "abundance": varied[:, 1],
        "mix distance": _mix_distances(categories, answers),
        "eCPM": mean_ecpm_by_user(worth, cutoff=LIST_CUTOFF),
    }
    for cutoff in LTRR_CUTOFFS:
        columns[f"LTRR@{cutoff}"] = ltr_recall_by_user(lists, answers.labels, cutoff=cutoff)
    return (*names, *columns), np.column_stack([hit, *columns.values()])


def _describe(lists: NDArray[np.int64], answers: Answers) -> Lists:
    top = lists[:, :LIST_CUTOFF]
    categories, worth = _categories_and_worth(top, answers)
    found = diversity(categories)
    labels, distances = answers.labels, _mix_distances(categories, answers)
    return Lists(
        concentration=found.concentration,
        abundance=found.abundance,
        diversity=found.score,
        mix_distance=0.0 if np.isnan(distances).all() else float(np.nanmean(distances)),
        mean_ecpm=mean_ecpm(worth, cutoff=LIST_CUTOFF),
        ltrr={f"LTRR@{cutoff}": ltr_recall(top, labels, cutoff=cutoff) for cutoff in LTRR_CUTOFFS if any(labels)},
    )


def _categories_and_worth(top: NDArray[np.int64], answers: Answers) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return category codes (`ABSENT` where a list has ended) and eCPM (NaN there) of the ads of lists."""
    categories = _categories(top.ravel(), answers.index).reshape(top.shape)
    ads, inverse = np.unique(top, return_inverse=True)
    worth = np.array([np.nan if ad == ABSENT else answers.ecpm.get(ad, 0.0) for ad in ads.tolist()])
    return categories, worth[inverse].reshape(top.shape)


def _categories(ads: NDArray[np.int64], index: AdIndex) -> NDArray[np.int64]:
    """Return the telling categories of ads, `ABSENT` for those the index does not hold."""
    rows = index.rows(ads)
    if not len(index):
        return np.full(len(ads), ABSENT)
    return np.where(rows < 0, ABSENT, telling_categories(index).of_rows[rows])


def _mix_distances(categories: NDArray[np.int64], answers: Answers) -> NDArray[np.float64]:
    sequences, split = answers.data[0], answers.split
    own = ad_histories(sequences, sequences.offsets[split.users], split.test)
    return mix_distances(categories, _categories(own.items, answers.index), own.offsets)
