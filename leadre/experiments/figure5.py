"""Figure 5: how much of a retrieved list is left when the oldest behaviors are taken out of the sequence.

LEADRE §5.2.6, Eq. 7. Truncation from one end cannot tell "the beginning matters more" from "whatever goes first changes
the list most", so beside the paper's curves the newer half is taken away alone, and behaviors of either domain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.decoding.load import load_engine
from leadre.evaluation.bootstrap import independent_differences, pooled_intervals
from leadre.evaluation.dice import dice_by_user
from leadre.evaluation.ranking import gains, hits, ranks_of
from leadre.experiments.ablation import Trials, fine_tuned, index_of
from leadre.experiments.result import (
    Comparison,
    Curve,
    Direction,
    Experiment,
    Measured,
    compare,
    make_rows,
    tabulate,
)
from leadre.experiments.truncated import (
    LAST,
    NEWER,
    OLDER,
    WHOLE,
    WITHOUT_ADS,
    WITHOUT_CONTENT,
    Histories,
    parts_of,
    read_histories,
    retrieve,
)
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.train import train
from leadre.recipe import Recipe
from leadre.training.learner.release_folder import load_prompt_encoder, open_release

COUNT = 8
"""Ads of a list that are compared: the largest K of the paper's tables (it names none for Eq. 7)."""
POINTS = 12
"""Numbers of removed behaviors that are tried, evenly spread up to what nine of ten sequences have."""
SHOWN = 5
"""Of them in the table; the curves have all."""
LEAST_USERS = 10
"""A point of a curve is the mean of so many users or more."""
ALL, FEWEST, MIDDLE, MOST = "all users", "fewest ads", "middle", "most ads"
_SHARE = "older half's share of the fall"
_OLDER_GONE, _REST_GONE = "fall: older half removed", "further fall: newer half too"
_NEWER_GONE = "fall: newer half removed"
_ADS_GONE, _CONTENT_GONE = "fall: ads removed", "fall: as much content removed"


def figure5(recipe: Recipe, trials: Trials, *, release: Path | None = None) -> tuple[Experiment, ...]:
    """Retrieve for truncated sequences and compare the lists.

    Args:
        recipe: its evaluation section and beam width; all of it when a release is to be trained.
        trials: where the data is; with a release the seeds do not count.
        release: folder of the release that is asked; None trains one, before business alignment.

    Returns:
        The curves, with the users of most and of fewest ads compared; what halves and domains weigh; hit ratios.

    Raises:
        InvalidInput: no evaluated user has two behaviors before the test ad.
        ArtifactIncomplete, ReleaseMismatch: the release is not whole, or its index is another.
        ConfigError, Unavailable: as `train`.
    """
    if release is not None:
        index = AdIndex.load(trials.indexes / open_release(release).facts["index_version"])
        return _experiments(release, recipe, trials, index=index)
    index = index_of(recipe.index, trials)
    with tempfile.TemporaryDirectory(prefix="leadre-figure5-") as scratch:
        made = train(
            database_url=trials.database_url,
            releases=Path(scratch),
            index=index,
            recipe=fine_tuned(recipe),
            now=trials.now,
            name="figure5",
            progress=trials.progress,
        )
        return _experiments(made.folder, recipe, trials, index=index)


def _experiments(release: Path, recipe: Recipe, trials: Trials, *, index: AdIndex) -> tuple[Experiment, ...]:
    encoder = load_prompt_encoder(release)
    histories = read_histories(
        database_url=trials.database_url, index=index, encoder=encoder, recipe=recipe.evaluation, now=trials.now
    )
    lengths = np.array([len(ads) for ads in histories.is_ad])
    points = np.unique(np.linspace(1, max(1, np.quantile(lengths - 1, 0.9)), POINTS).round().astype(int)).tolist()
    lists = retrieve(
        histories,
        [parts_of(ads, points, seed=recipe.evaluation.seed + user) for user, ads in enumerate(histories.is_ad)],
        engine=load_engine(
            release, index=index, device=trials.device, precision=trials.precision, collaborative_weight=0, variety=0.0
        ),
        encoder=encoder,
        recipe=recipe.evaluation,
        beam_width=max(COUNT, recipe.decoding.beam_width),
        count=COUNT,
        progress=trials.progress,
    )
    groups = _groups(histories.is_ad)
    alike = {name: _among(dice_by_user(found, lists[WHOLE]), found) for name, found in lists.items()}
    seed = recipe.evaluation.seed
    return (
        _curves(alike, groups, lengths, seed=seed),
        _weights(alike, groups, seed=seed),
        _hit_ratios(lists, histories, seed=seed),
    )


def _among(values: NDArray[np.float64], lists: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of the users that were asked, NaN for the others."""
    return np.where((lists >= 0).any(axis=1), values, np.nan)


def _groups(is_ad: Sequence[NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    """Return who is in which third by the share of ads in the sequence; no thirds where the shares do not differ."""
    shares = np.array([ads.mean() for ads in is_ad])
    third = np.searchsorted(np.quantile(shares, [1 / 3, 2 / 3]), shares)
    found = {name: third == place for place, name in enumerate((FEWEST, MIDDLE, MOST))}
    thirds = {name: users for name, users in found.items() if users.any()}
    return {ALL: np.ones(len(shares), np.bool_), **(thirds if len(thirds) > 1 else {})}


def _curves(
    alike: Mapping[str, NDArray[np.float64]],
    groups: Mapping[str, NDArray[np.bool_]],
    lengths: NDArray[np.int64],
    *,
    seed: int,
) -> Experiment:
    points = [int(name) for name in alike if name.isdigit()]
    known = {
        group: [point for point in sorted(points) if np.isfinite(alike[str(point)][users]).sum() >= LEAST_USERS]
        for group, users in groups.items()
    }
    everywhere = [point for point in known[ALL] if all(point in own for own in known.values())]
    shown = np.unique(np.linspace(0, len(everywhere) - 1, SHOWN).astype(int)) if everywhere else ()
    columns = {f"Dice, {everywhere[at]} removed": alike[str(everywhere[at])] for at in shown}
    fall = 1 - alike[LAST]
    share = np.divide(1 - alike[NEWER], fall, out=np.full(len(fall), np.nan), where=fall > 0)
    if all(np.isfinite(share[users]).any() for users in groups.values()):
        columns[_SHARE] = share
    values = np.stack(list(columns.values()), axis=1) if columns else np.empty((len(fall), 0))
    measured = {
        group: Measured(metrics=tuple(columns), values=np.where(users[:, None], values, np.nan)[None])
        for group, users in groups.items()
    }
    said = ", ".join(f"{group} {users.sum():,} users of {lengths[users].mean():.1f}" for group, users in groups.items())
    return Experiment(
        name="figure5",
        title="Figure 5: the list that is left when the oldest behaviors are removed",
        note=f"the first {COUNT} ads; users in thirds by the share of ads among their behaviors: {said} behaviors; a "
        "point has the users who have more behaviors than are removed; profile and summary stay as they are",
        users=len(lengths),
        seeds=(0,),
        metrics=tuple(columns),
        reference=FEWEST if FEWEST in groups else ALL,
        rows=make_rows(measured, paper={}, seed=seed),
        comparisons=_most_against_fewest(tuple(columns), values, groups, seed=seed) if MOST in groups else (),
        curves=tuple(
            Curve(
                panel="everyone" if group == ALL else "by the share of ads",
                name=group,
                x=tuple(float(point) for point in known[group]),
                y=tuple(
                    pooled_intervals(np.stack([alike[str(p)][users] for p in known[group]], axis=1)[None], seed=seed)
                ),
            )
            for group, users in groups.items()
            if known[group]
        ),
        x_label="oldest behaviors removed",
        y_label="Dice with the whole sequence's list",
    )


def _most_against_fewest(
    metrics: Sequence[str], values: NDArray[np.float64], groups: Mapping[str, NDArray[np.bool_]], *, seed: int
) -> tuple[Comparison, ...]:
    """Compare the users of most and of fewest ads: other users, so not paired.

    The paper finds that ads move the lists more, and that they move the weight to the beginning.
    """
    most, fewest = values[groups[MOST]], values[groups[FEWEST]]
    bases = np.nanmean(fewest, axis=0).tolist()
    return tuple(
        Comparison(
            row=MOST,
            against=FEWEST,
            metric=metric,
            difference=difference,
            base=base,
            relative=difference.mean / base if base else None,
            direction=1 if metric == _SHARE else -1,
            paper=None,
        )
        for metric, difference, base in zip(
            metrics, independent_differences(most, fewest, seed=seed), bases, strict=True
        )
    )


def _weights(
    alike: Mapping[str, NDArray[np.float64]], groups: Mapping[str, NDArray[np.bool_]], *, seed: int
) -> Experiment:
    falls = {
        _OLDER_GONE: 1 - alike[NEWER],
        _REST_GONE: alike[NEWER] - alike[LAST],
        _NEWER_GONE: 1 - alike[OLDER],
    }
    pairs = [(_OLDER_GONE, _REST_GONE), (_OLDER_GONE, _NEWER_GONE)]
    if WITHOUT_ADS in alike:
        falls |= {_ADS_GONE: 1 - alike[WITHOUT_ADS], _CONTENT_GONE: 1 - alike[WITHOUT_CONTENT]}
        pairs.append((_ADS_GONE, _CONTENT_GONE))
    known = {
        name: users for name, users in groups.items() if all(np.isfinite(own[users]).any() for own in falls.values())
    }
    metrics = tuple(known)
    chosen = np.stack(list(known.values()), axis=1)
    measured = {
        row: Measured(metrics=metrics, values=np.where(chosen, own[:, None], np.nan)[None])
        for row, own in falls.items()
    }
    directions: dict[tuple[str, str], dict[str, Direction]] = {pair: dict.fromkeys(metrics, 1) for pair in pairs}
    return Experiment(
        name="figure5_weights",
        title="Figure 5, what weighs more: the beginning or the end, ads or content",
        note="fall of Dice; the paper says that the earlier part and the ads weigh more. The further fall starts from "
        "a list that is already changed; the newer half removed alone starts from the whole sequence, as the older "
        "half does. Of ads and content as many are removed, at random, from users who have both",
        users=len(chosen),
        seeds=(0,),
        metrics=metrics,
        reference=_OLDER_GONE,
        rows=make_rows(measured, paper={}, seed=seed),
        comparisons=compare(measured, pairs, paper={}, directions=directions, seed=seed),
    )


def _hit_ratios(lists: Mapping[str, NDArray[np.int64]], histories: Histories, *, seed: int) -> Experiment:
    cutoffs = (1, 4, COUNT)
    metrics = tuple(f"{metric}@{cutoff}" for metric in ("HR", "NDCG") for cutoff in cutoffs)
    measured = {}
    for name in (WHOLE, NEWER, LAST):
        ranks = ranks_of(histories.targets, lists[name])
        values = np.stack([figure(ranks, cutoff) for figure in (hits, gains) for cutoff in cutoffs], axis=1)
        measured[name] = Measured(metrics=metrics, values=values[None])
    return tabulate(
        measured,
        name="figure5_hits",
        title="Figure 5, what longer sequences know of the user: hit ratios",
        note="the paper says that longer sequences capture more of the user's preference",
        seeds=(0,),
        metrics=metrics,
        paper={},
        directions={(name, WHOLE): dict.fromkeys(metrics, -1) for name in (NEWER, LAST)},
        seed=seed,
    )
