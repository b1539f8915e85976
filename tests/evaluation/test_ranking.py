import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.evaluation.ranking import ABSENT, gains, hit_ratio, hits, ndcg, ranks_of

ranks = st.lists(st.integers(-1, 12), min_size=1, max_size=30).map(lambda values: np.array(values, np.int64))


def test_hand_counted_figures():
    lists = np.array([[7, 8, 9], [8, 7, 9], [9, 8, ABSENT], [ABSENT, ABSENT, ABSENT]])
    found = ranks_of(np.array([7, 7, 7, 7]), lists)
    assert found.tolist() == [0, 1, ABSENT, ABSENT]
    assert hit_ratio(found, 1) == 1 / 4
    assert hit_ratio(found, 2) == 2 / 4
    assert ndcg(found, 2) == pytest.approx((1 + 1 / math.log2(3)) / 4)


def test_padding_is_nobodys_target():
    assert ranks_of(np.array([ABSENT]), np.array([[ABSENT, 3]])).tolist() == [ABSENT]
    assert ranks_of(np.array([5, 6]), np.empty((2, 0), np.int64)).tolist() == [ABSENT, ABSENT]


@given(ranks, st.integers(1, 10))
def test_ndcg_is_between_nothing_and_the_hit_and_both_grow_with_the_cutoff(found, cutoff):
    assert ((gains(found, cutoff) >= 0) & (gains(found, cutoff) <= hits(found, cutoff))).all()
    assert (hits(found, cutoff) <= hits(found, cutoff + 1)).all()
    assert ndcg(found, cutoff) <= ndcg(found, cutoff + 1)
    assert hit_ratio(found, 1) == ndcg(found, 1)


def test_no_users_give_zero_and_unequal_sizes_an_error():
    nobody = np.empty(0, np.int64)
    assert (hit_ratio(nobody, 3), ndcg(nobody, 3)) == (0.0, 0.0)
    with pytest.raises(InvalidInput, match="3 targets"):
        ranks_of(np.arange(3), np.zeros((2, 5), np.int64))
