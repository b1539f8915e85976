import numpy as np

from leadre.evaluation.slices import slices


def test_each_user_is_in_the_slices_that_fit():
    found = slices(
        targets=np.array([3, 9, 4, 3]),
        learnt=np.array([3, 4, 4, 5, 8]),
        known=np.array([4, 5, 2, 11]),
        arpu_groups=np.array([0, 4, 5, 24]),
        group_count=25,
    )
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "cold_ads": [False, True, False, False],
        "short_histories": [True, False, True, False],
        "arpu_0_4": [True, True, False, False],
        "arpu_5_9": [False, False, True, False],
        "arpu_20_24": [False, False, False, True],
    }


def test_users_of_one_arpu_group_and_empty_slices_make_none():
    found = slices(
        targets=np.array([3, 3, 4]),
        learnt=np.array([3, 4]),
        known=np.array([5, 6, 7]),
        arpu_groups=np.array([0, 0, 0]),
        group_count=25,
    )
    assert found == {}
