"""Which positions are taught: every target of the training data, with the ads that its user had before it.

Ours; the targets are LEADRE §4.3.1's. The teacher reads what training may see of the users and nothing after a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Domain
from leadre.evaluation.baselines import Histories
from leadre.indexing.ad_index import AdIndex
from leadre.training.data.examples import TrainingData

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Targets, in the order in which the data counts them (`TrainingData.first_targets`).

    Args:
        users: int64[rows], user ids.
        histories: one row a user, ads up to its last target.
        place: int64[n], the target's among the items of all rows, ascending.
        leaf: int64[n], the target's in the index.
    """

    users: Int64s
    histories: Histories
    place: Int64s
    leaf: Int64s

    def __len__(self) -> int:
        return len(self.place)

    @property
    def row(self) -> Int64s:
        """The row of each target, int64[n]."""
        return np.searchsorted(self.histories.offsets, self.place, side="right") - 1


def positions_of(data: TrainingData, *, index: AdIndex) -> Positions:
    """Return the positions of all targets.

    Args:
        data: what the tasks make examples of.
        index: holds all targets.
    """
    users, rows, place = [], [], []
    before = 0
    for sequence, targets in zip(data.sequences, data.targets, strict=True):
        if not targets:
            continue
        ads = [at for at, behavior in enumerate(sequence[: targets[-1] + 1]) if behavior.domain is Domain.AD]
        users.append(sequence[0].user_id)
        rows.append(np.array([sequence[at].item_id for at in ads], np.int64))
        place.append(before + np.searchsorted(ads, targets))
        before += len(ads)
    histories, places = Histories.of(rows), np.concatenate([np.empty(0, np.int64), *place])
    return Positions(
        users=np.array(users, np.int64), histories=histories, place=places, leaf=index.rows(histories.items[places])
    )
