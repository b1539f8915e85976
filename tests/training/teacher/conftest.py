"""A signal over the tiny world's ads, and the teacher's rows of its targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.cross_fit import CrossFitted
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.recipe import CollaborativeRecipe, SasRecRecipe
from leadre.training.data.examples import TrainingData
from leadre.training.teacher.make import teacher_rows
from leadre.training.teacher.positions import positions_of
from leadre.training.teacher.rows import TeacherRows


@pytest.fixture(scope="session")
def signal(data: TrainingData, index: AdIndex) -> Collaborative:
    train = positions_of(data, index=index).histories
    sasrec = SasRecRecipe(width=8, layers=1, heads=2, positions=20, epochs=8, learning_rate=2e-2, batch_size=16)
    targets = np.full(len(train), ABSENT)
    targets[::3] = train.items[train.offsets[1:] - 1][::3]
    return Collaborative.fit(train, targets=targets, recipe=CollaborativeRecipe(sasrec=sasrec), seed=4)


@pytest.fixture(scope="session")
def teacher(
    data: TrainingData, index: AdIndex, signal: Collaborative, tmp_path_factory: pytest.TempPathFactory
) -> TeacherRows:
    folder: Path = tmp_path_factory.mktemp("teacher") / "rows"
    return teacher_rows(folder, data, teacher=lambda: CrossFitted(signal=signal), index=index, temperature=1.0)
