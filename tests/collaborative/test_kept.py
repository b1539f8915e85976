"""SASRecs that are kept: trained once, found again, and another where anything that decides the training is another."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from leadre.collaborative import kept
from leadre.collaborative.kept import fit_once
from leadre.collaborative.sasrec import SasRec
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.recipe import SasRecRecipe

RNG = np.random.default_rng(5)
ROWS = [RNG.choice(np.arange(100, 140), size, replace=False) for size in RNG.integers(2, 9, 60)]
TRAIN = Histories.of(ROWS)
TARGETS = RNG.integers(100, 140, len(ROWS))
TEXTS = RNG.normal(size=(len(np.unique(TRAIN.items)), 6)).astype(np.float32)
RECIPE = SasRecRecipe(width=8, layers=1, heads=2, positions=6, epochs=1, batch_size=32)


def fit(folder: Path | None, **changed: Any) -> SasRec:
    asked = {"targets": TARGETS, "recipe": RECIPE, "seed": 3, "texts": TEXTS} | changed
    return fit_once(folder, asked.pop("train", TRAIN), **asked)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry a training."""
    done: list[str] = []

    class Counted(SasRec):
        @classmethod
        def fit(cls, *arguments: Any, **named: Any) -> SasRec:  # type: ignore[override]
            done.append("trained")
            return SasRec.fit(*arguments, **named)

    monkeypatch.setattr(kept, "SasRec", Counted)
    return done


def test_the_second_call_trains_nothing_and_has_the_same_weights(tmp_path: Path, trainings: list[str]) -> None:
    told: list[str] = []
    first = fit(tmp_path / "sasrec", progress=lambda what, *_: told.append(what))
    assert told == ["SASRec epochs"]
    again = fit(tmp_path / "sasrec", progress=lambda what, *_: told.append(what))
    assert (len(trainings), len(told)) == (1, 1)
    plain = SasRec.fit(TRAIN, targets=TARGETS, recipe=RECIPE, seed=3, texts=TEXTS)
    for other in (again, plain):
        assert np.array_equal(first.items, other.items)
        assert first.epochs == other.epochs == 1
        weights = other.network.state_dict()
        for name, weight in first.network.state_dict().items():
            assert torch.equal(weight, weights[name]), name
    asked = Histories.of([ROWS[0][:3], np.array([7]), ROWS[4]])
    assert np.array_equal(first.top(asked, 9, seen="leave_out"), again.top(asked, 9, seen="leave_out"))


def test_rows_without_items_are_the_same_training(tmp_path: Path, trainings: list[str]) -> None:
    fit(tmp_path)
    rows = [np.empty(0, np.int64), *ROWS, np.empty(0, np.int64)]
    fit(tmp_path, train=Histories.of(rows), targets=np.concatenate([[ABSENT], TARGETS, [ABSENT]]))
    assert len(trainings) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 4},
        {"texts": None},
        {"texts": TEXTS + np.float32(1e-6)},
        {"targets": np.where(np.arange(len(TARGETS)) == 0, ABSENT, TARGETS)},
        {"recipe": msgspec.structs.replace(RECIPE, patience=11)},
        {"train": Histories(offsets=TRAIN.offsets, items=TRAIN.items[::-1].copy())},
    ],
    ids=["seed", "ids alone", "texts", "targets", "recipe", "histories"],
)
def test_what_decides_the_training_makes_another(tmp_path: Path, trainings: list[str], changed: dict[str, Any]) -> None:
    fit(tmp_path)
    fit(tmp_path, **changed)
    assert len(trainings) == 2


def test_a_damaged_one_is_trained_again_and_none_is_kept_without_a_folder(tmp_path: Path, trainings: list[str]) -> None:
    fit(tmp_path)
    weights = next(tmp_path.glob("*/*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    fit(tmp_path)
    assert len(trainings) == 2
    assert next(tmp_path.glob("*/*.safetensors")).read_bytes() == whole
    fit(None)
    assert len(trainings) == 3


def test_of_two_who_ask_at_once_one_trains(tmp_path: Path, trainings: list[str]) -> None:
    threads = [threading.Thread(target=fit, args=(tmp_path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainings) == 1


def test_the_ones_used_last_are_kept(tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    for seed in (1, 2, 1, 3, 1):
        fit(tmp_path, seed=seed)
    assert (len(trainings), sum(path.is_dir() for path in tmp_path.iterdir())) == (3, 2)
    fit(tmp_path, seed=2)
    assert len(trainings) == 4
