"""The metrics of the paper's tables, by hand: §5.1.2 (Tables 1, 2, 4, 6), §5.2.3 (Figure 4b), §5.2.6 (Eq. 7)."""

import math

import numpy as np
import pytest

from leadre.evaluation.diversity import dice, diversity, ltr_recall
from leadre.evaluation.ranking import ABSENT, hit_ratio, ndcg

# Ranks of five users' clicked ads in their lists: first, third, sixth, not at all, ninth.
RANKS = np.array([0, 2, 5, ABSENT, 8])


def test_hit_ratio_at_the_papers_cutoffs():
    assert [hit_ratio(RANKS, k) for k in (1, 4, 8)] == pytest.approx([1 / 5, 2 / 5, 3 / 5])


def test_ndcg_at_the_papers_cutoffs():
    first, third, sixth = 1.0, 1 / math.log2(4), 1 / math.log2(7)
    assert [ndcg(RANKS, k) for k in (1, 4, 8)] == pytest.approx(
        [first / 5, (first + third) / 5, (first + third + sixth) / 5]
    )


def test_the_papers_own_rows_obey_ndcg_between_hr_over_log_k_and_hr():
    # HR@1, HR@4, HR@8, NDCG@4, NDCG@8 of Table 2: NDCG@K counts HR@1 fully and the other hits at least 1 / log2(K + 1).
    for hr1, hr4, hr8, ndcg4, ndcg8 in (
        (0.0780, 0.1610, 0.2062, 0.1232, 0.1391),
        (0.0707, 0.1444, 0.1879, 0.1107, 0.1260),
    ):
        assert hr1 + (hr4 - hr1) / math.log2(5) <= ndcg4 <= hr1 + (hr4 - hr1) / math.log2(3)
        assert ndcg4 + (hr8 - hr4) / math.log2(9) - 1e-4 <= ndcg8 <= ndcg4 + (hr8 - hr4) / math.log2(6) + 1e-4


def test_concentration_abundance_and_diversity():
    # Two top-4 lists by category: one with three of a kind and one other, one with four different.
    found = diversity(np.array([[1, 1, 2, 1], [1, 2, 3, 4]]))
    assert found.concentration == (3 / 4 + 1 / 4) / 2
    assert found.abundance == (2 + 4) / 2
    assert found.score == (1 - 0.5) * 3 / 4
    narrow, wide = diversity(np.array([[1, 1, 1, 1]])), diversity(np.array([[1, 2, 3, 4]]))
    assert narrow.score == 0 < found.score < wide.score


def test_ltrr_is_recall_of_the_ads_that_other_strategies_chose():
    assert ltr_recall(np.array([[5, 6, 7, 8]]), [{6, 8, 9}], cutoff=4) == pytest.approx(2 / 3)


def test_equation_7():
    assert dice([1, 2, 3, 4], [3, 4, 5]) == pytest.approx(2 * 2 / (4 + 3))
