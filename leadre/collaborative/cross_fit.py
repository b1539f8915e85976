"""Cross-fitting: what the signal would say of users that it was not trained on.

Ours. A model that has seen a user's next ad remembers it; an LLM that learns from it, or beside it, would take that
for knowledge. So users are split into folds, and each fold has a SASRec that was trained on the others. What ads
follow which is counted, so a user's own counts are taken away instead, exactly (leadre.training.teacher).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as with_values
from numpy.typing import NDArray

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.sasrec import SasRec
from leadre.errors import ConfigError
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.recipe import SasRecRecipe

Progress = Callable[[str, int, int | None], None]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """A signal, and for each fold of users a SASRec that has not seen them; without folds the signal is for all.

    Args:
        signal: the release's; its share, counts and policy hold for all folds.
        folds: each knows the signal's items; none where there is no cross-fitting.
        seed: of the split.
    """

    signal: Collaborative
    folds: tuple[SasRec, ...] = ()
    seed: int = 0

    def fold_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the fold of each user id, int64[n]; 0 without folds."""
        return fold_of(users, folds=max(1, len(self.folds)), seed=self.seed)

    def of_fold(self, fold: int) -> Collaborative:
        """Return what a fold's users are taught by."""
        return replace(self.signal, sasrec=self.folds[fold]) if self.folds else self.signal


def fold_of(users: NDArray[np.int64], *, folds: int, seed: int) -> NDArray[np.int64]:
    """Return each user's fold, int64[n] below `folds`: by the id alone, so that new users move nobody."""
    mixed = (users.astype(np.uint64) + np.uint64(seed + 1)) * _ODD
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _MIX
    return ((mixed ^ (mixed >> np.uint64(29))) % np.uint64(folds)).astype(np.int64)


def cross_fit(
    signal: Collaborative,
    train: Histories,
    *,
    users: NDArray[np.int64],
    folds: int,
    recipe: SasRecRecipe,
    seed: int,
    texts: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> CrossFitted:
    """Train a SASRec for each fold, for as many epochs as were best for the signal's own.

    The folds see no validation ad: how long to train is all they take from it. The same seed gives the same folds.

    Args:
        signal: fitted on `train`.
        train: one row a user.
        users: int64[len(train)], their ids.
        folds: 0 for none.
        recipe: sizes and rates.
        seed: of split, weights and order.
        texts: float32[signal's items, d], as in `SasRec.fit`.
        progress: called after each epoch.

    Raises:
        ConfigError: a fold holds all users or none.
    """
    if not folds:
        return CrossFitted(signal=signal, seed=seed)
    mine = fold_of(users, folds=folds, seed=seed)
    sizes = np.bincount(mine, minlength=folds)
    if (sizes == 0).any():
        raise ConfigError(f"sft.distil.folds={folds} is too many for {len(train)} users: a fold holds none; lower it")
    for_epochs = with_values(recipe, epochs=max(1, signal.sasrec.epochs))

    def report(fold: int) -> Progress | None:
        return progress and (lambda what, done, total: progress(f"{what}, fold {fold + 1} of {folds}", done, total))

    fitted = []
    for fold in range(folds):
        others = train.take(np.flatnonzero(mine != fold))
        fitted.append(
            SasRec.fit(
                others,
                targets=np.full(len(others), ABSENT, np.int64),
                recipe=for_epochs,
                seed=seed + fold + 1,
                texts=texts,
                items=signal.items,
                progress=report(fold),
            )
        )
    return CrossFitted(signal=signal, folds=tuple(fitted), seed=seed)
