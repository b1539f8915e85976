from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leadre.evaluation.baselines import Histories
from leadre.evaluation.ranking import ABSENT
from leadre.evaluation.slices import seen_transitions, slices

HISTORIES = st.lists(st.lists(st.integers(1, 6), max_size=5), min_size=1, max_size=6)


def histories(*rows: list[int]) -> Histories:
    return Histories.of([np.array(row, np.int64) for row in rows])


def test_each_user_is_in_the_slices_that_fit() -> None:
    found = slices(
        targets=np.array([3, 9, 4, 3]),
        train=histories([3, 4], [4, 5, 8], [8, 3]),
        before=histories([4, 5, 4, 5, 4, 3], [3, 3, 3, 3, 3], [3], []),
        arpu_groups=np.array([0, 4, 5, 24]),
        group_count=25,
    )
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "cold_ads": [False, True, False, False],
        "short_histories": [False, True, True, True],
        "seen_transitions": [False, False, True, False],  # 3 then 4; 8 then 3 is no 3 then 3
        "unseen_transitions": [True, True, False, True],
        "arpu_0_4": [True, True, False, False],
        "arpu_5_9": [False, False, True, False],
        "arpu_20_24": [False, False, False, True],
    }


def test_users_of_one_arpu_group_and_empty_slices_make_none() -> None:
    found = slices(
        targets=np.array([3, 3, 4]),
        train=histories([4, 3], [3, 4]),
        before=histories(*[[3, 4, 3, 4, 3, 4]] * 2, [4, 3] * 3),
        arpu_groups=np.array([0, 0, 0]),
        group_count=25,
    )
    assert list(found) == ["seen_transitions"]


@given(HISTORIES, st.lists(st.tuples(st.integers(-1, 7), st.integers(1, 7)), min_size=1, max_size=8))
def test_a_transition_was_seen_where_some_history_has_the_two_ads_beside_each_other(
    rows: list[list[int]], asked: list[tuple[int, int]]
) -> None:
    pairs = {pair for row in rows for pair in pairwise(row)}
    last, targets = (np.array(side, np.int64) for side in zip(*asked, strict=True))
    found = seen_transitions(last, targets, histories(*rows))
    assert found.tolist() == [pair in pairs for pair in asked]
    assert not seen_transitions(np.array([ABSENT]), np.array([1]), histories(*rows)).any()
