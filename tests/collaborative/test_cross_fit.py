"""Cross-fitting: every user has a model that has not seen him, the same one whenever it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import cross_fit, fold_of
from leadre.errors import ConfigError
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.recipe import CollaborativeRecipe, SasRecRecipe

SASREC = SasRecRecipe(width=8, layers=1, heads=2, positions=6, dropout=0.0, epochs=6, learning_rate=2e-2, batch_size=16)
USERS = np.arange(40) * 13 + 5
TRAIN = Histories.of([np.arange(100 + row % 9, 104 + row % 9) for row in range(40)])
TARGETS = np.array([104 + row % 9 for row in range(40)])


@pytest.fixture(scope="module")
def signal() -> Collaborative:
    return Collaborative.fit(TRAIN, targets=TARGETS, recipe=CollaborativeRecipe(sasrec=SASREC), seed=1)


def test_a_user_s_fold_depends_on_the_id_and_the_seed_alone_and_folds_are_even() -> None:
    many = np.random.default_rng(0).integers(-(2**62), 2**62, 5000)
    folds = fold_of(many, folds=5, seed=3)
    assert np.bincount(folds).tolist() == pytest.approx([1000] * 5, abs=120)
    assert np.array_equal(fold_of(many[::-1], folds=5, seed=3)[::-1], folds)
    assert (fold_of(many, folds=5, seed=4) != folds).any()


def test_a_fold_s_model_is_the_same_whatever_its_own_users_did(signal: Collaborative) -> None:
    fitted = cross_fit(signal, TRAIN, users=USERS, folds=3, recipe=SASREC, seed=2)
    assert [model.items.tolist() for model in fitted.folds] == [signal.items.tolist()] * 3
    assert [model.epochs for model in fitted.folds] == [signal.sasrec.epochs] * 3
    mine = np.flatnonzero(fitted.fold_of(USERS) == 1)
    others = [TRAIN.items[TRAIN.offsets[row] : TRAIN.offsets[row + 1]] for row in range(40)]
    for row in mine:
        others[row] = others[row][::-1]
    again = cross_fit(signal, Histories.of(others), users=USERS, folds=3, recipe=SASREC, seed=2)
    asked = TRAIN.take(np.arange(5))
    for fold, same in enumerate([False, True, False]):
        said, other = (model.folds[fold].log_probabilities(asked, seen="keep") for model in (fitted, again))
        assert np.array_equal(said, other) == same
    assert fitted.of_fold(1).sasrec is fitted.folds[1]
    assert fitted.of_fold(1).co_visitation is signal.co_visitation


def test_without_folds_the_signal_teaches_all(signal: Collaborative) -> None:
    whole = cross_fit(signal, TRAIN, users=USERS, folds=0, recipe=SASREC, seed=2)
    assert whole.of_fold(int(whole.fold_of(USERS).max())) is signal


def test_more_folds_than_users_are_refused(signal: Collaborative) -> None:
    with pytest.raises(ConfigError, match=r"folds=9 is too many for 2 users"):
        cross_fit(signal, TRAIN.take(np.arange(2)), users=USERS[:2], folds=9, recipe=SASREC, seed=2)


def test_without_a_validation_ad_the_signal_is_fitted_to_the_end() -> None:
    fitted = Collaborative.fit(
        TRAIN, targets=np.full(40, ABSENT), recipe=CollaborativeRecipe(sasrec=SASREC), seed=1
    )
    assert fitted.sasrec.epochs == SASREC.epochs
