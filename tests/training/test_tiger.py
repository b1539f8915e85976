"""The baseline of S-IDs alone, through the real engine."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from leadre.decoding.load import engine_of
from leadre.errors import ConfigError
from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.indexing.ad_index import AdIndex
from leadre.recipe import TigerRecipe, decode_recipe
from leadre.training.run.progress import Progress
from leadre.training.tiger import Tiger

TINY = TigerRecipe(
    width=24,
    layers=1,
    heads=2,
    feed_forward=40,
    positions=6,
    epochs=12,
    patience=12,
    learning_rate=2e-2,
    weight_decay=0.01,
    batch_size=8,
)


def histories(lists: Sequence[Sequence[int]]) -> Histories:
    return Histories(
        offsets=np.cumsum([0, *map(len, lists)]), items=np.array([item for row in lists for item in row], np.int64)
    )


def cycle(start: int, length: int) -> list[int]:
    """Items 100 to 110, each followed by the next."""
    return [100 + (start + at) % 11 for at in range(length)]


ROWS = [cycle(start, 2 + start % 9) for start in range(55)]
TRAIN, TARGETS = histories([row[:-1] for row in ROWS]), np.array([row[-1] for row in ROWS])


@pytest.fixture(scope="module")
def index() -> AdIndex:
    """Items 100 to 112, of which 111 and 112 never occur, in two levels of codes and one that tells them apart."""
    ids = np.arange(100, 113)
    names = ["x"] * len(ids)
    return AdIndex.assemble(
        version="v1",
        ad_ids=ids,
        codes=np.array([(at % 3, at % 4, at // 12) for at in range(len(ids))], np.int32),
        first_categories=names,
        second_categories=names,
        advertiser_ids=ids,
        embeddings=np.zeros((len(ids), 5), np.float32),
        code_counts=(3, 4, 2),
        quality={},
    )


def fit(
    index: AdIndex,
    *,
    train: Histories = TRAIN,
    targets: NDArray[np.int64] = TARGETS,
    recipe: TigerRecipe = TINY,
    seed: int = 3,
    progress: Progress | None = None,
) -> Tiger:
    return Tiger.fit(
        train,
        targets=targets,
        index=index,
        engine_of=lambda model, vocabulary: engine_of(model, index=index, vocabulary=vocabulary, score="level"),
        recipe=recipe,
        seed=seed,
        progress=progress,
    )


@pytest.fixture(scope="module")
def tiger(index: AdIndex) -> Tiger:
    return fit(index)


def test_it_learns_which_item_follows(tiger: Tiger) -> None:
    found = tiger.top(histories([cycle(2, 3), cycle(9, 5), cycle(6, 1), cycle(3, 40)]), 2, seen="keep")
    assert found[:, 0].tolist() == [105, 103, 107, 110]


def test_seen_items_are_left_out_even_those_that_are_too_old_to_be_read(tiger: Tiger) -> None:
    found = tiger.top(histories([cycle(0, 9), [], cycle(4, 2)]), 14, seen="leave_out")
    assert sorted(found[0].tolist()) == [ABSENT] * 10 + [109, 110, 111, 112]
    assert sorted(found[1].tolist()) == [ABSENT, *range(100, 113)]
    assert sorted(found[2].tolist()) == [ABSENT] * 3 + sorted(set(range(100, 113)) - {104, 105})
    assert found[:, -1].tolist() == [ABSENT] * 3


def test_items_that_the_index_does_not_hold_are_passed_over(tiger: Tiger) -> None:
    with_unknown, without = histories([[7, 102, 8, 103]]), histories([[102, 103]])
    assert (tiger.top(with_unknown, 5, seen="keep") == tiger.top(without, 5, seen="keep")).all()


def test_the_same_seed_gives_the_same_lists(index: AdIndex) -> None:
    short = msgspec.structs.replace(TINY, epochs=1)
    first, second, other = (fit(index, recipe=short, seed=seed)._model.state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_it_stops_when_validation_no_longer_rises(index: AdIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Tiger, "_top", lambda _, rows, k, *, seen: np.full((len(rows), k), ABSENT))
    fit(index, recipe=msgspec.structs.replace(TINY, patience=2), progress=lambda _, step, __: steps.append(step))
    assert steps[-1] == 3 * 7  # passes of 55 rows in batches of 8: nothing is found, so the first one is the best


@pytest.mark.parametrize("rows", [[[]], [[4], [9]], []])
def test_nothing_to_learn_is_no_error(index: AdIndex, rows: list[list[int]]) -> None:
    model = fit(index, train=histories(rows), targets=np.full(len(rows), ABSENT))
    assert model.top(histories([[104], []]), 3, seen="leave_out").shape == (2, 3)


def test_without_held_out_items_all_passes_are_trained(index: AdIndex) -> None:
    steps: list[int] = []
    recipe = msgspec.structs.replace(TINY, epochs=2, patience=1)
    fit(index, targets=np.full(len(ROWS), ABSENT), recipe=recipe, progress=lambda _, step, __: steps.append(step))
    assert steps[-1] == 2 * 7


def test_a_width_that_rotary_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tiger\.width=12 must be a multiple of twice heads=4"):
        decode_recipe({"name": "x", "evaluation": {"tiger": {"width": 12, "heads": 4}}}, source="here")
