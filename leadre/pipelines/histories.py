"""Ad histories for models of ids: what training may see, and what followed. LEADRE §5.1.1."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadre.domain.behavior import Domain
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.evaluation.split import Split, hold_out
from leadre.recipe import EvaluationRecipe
from leadre.store.records.events import DOMAINS, Sequences

_AD = DOMAINS.index(Domain.AD)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingHistories:
    """What models of ids are trained on and stopped by.

    Args:
        train: one row a user, nothing that is held out.
        following: int64[users], the user's validation ad, `ABSENT` where none is held out.
    """

    train: Histories
    following: NDArray[np.int64]

    def digest(self) -> bytes:
        """Return a hash of all of it."""
        arrays = (self.train.offsets, self.train.items, self.following)
        return blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).digest()


def sasrecs_beside(folder: Path) -> Path:
    """Return where SASRecs are kept (leadre.collaborative.kept): beside the folder of indexes or of releases."""
    return folder.parent / "sasrec"


def split_of(sequences: Sequences, recipe: EvaluationRecipe) -> Split:
    """Return who is held out with which ads, as the recipe says."""
    return hold_out(
        recipe.split,
        sequences.offsets,
        sequences.domains == _AD,
        sequences.occurred_at_s,
        test_share=recipe.test_share,
    )


def training_histories(sequences: Sequences, split: Split) -> TrainingHistories:
    """Return every user's ads that training may see."""
    train = ad_histories(sequences, sequences.offsets[:-1], split.learn_until)
    following = np.full(len(train), ABSENT, np.int64)
    following[split.users] = sequences.item_ids[split.validation]
    return TrainingHistories(train=train, following=following)


def ad_histories(sequences: Sequences, first: NDArray[np.int64], end: NDArray[np.int64]) -> Histories:
    """Return the ads between two positions of the flat arrays, one row for each pair of positions."""
    ads = np.flatnonzero(sequences.domains == _AD)
    low, high = np.searchsorted(ads, first), np.searchsorted(ads, end)
    offsets = np.append(0, np.cumsum(high - low))
    places = np.repeat(low - offsets[:-1], high - low) + np.arange(offsets[-1])
    return Histories(offsets=offsets, items=sequences.item_ids[ads[places]])
