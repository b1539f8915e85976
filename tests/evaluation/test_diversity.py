import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.evaluation.diversity import (
    dice,
    diversity,
    diversity_by_user,
    ltr_recall,
    ltr_recall_by_user,
    mean_ecpm,
    mean_ecpm_by_user,
    mix_distances,
)
from leadre.evaluation.ranking import ABSENT


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=7))
def test_diversity_equals_the_plain_count(lists):
    padded = np.array([[*row, *[ABSENT] * (5 - len(row))] for row in lists], np.int64).reshape(-1, 5)
    found = diversity(padded)
    kept = [row for row in lists if row]
    shares = [max(map(row.count, row)) / len(row) for row in kept]
    assert found.concentration == pytest.approx(np.mean(shares) if kept else 0)
    assert found.abundance == pytest.approx(np.mean([len(set(row)) for row in kept]) if kept else 0)
    assert 0 <= found.score < 1


def test_each_user_has_figures_of_its_own_and_none_without_a_list():
    found = diversity_by_user(np.array([[4, 4, 5, 6], [7, 7, ABSENT, ABSENT], [ABSENT] * 4]))
    assert found[:2].tolist() == [[0.5, 3, 0.5 * 3 / 4], [1, 1, 0]]
    assert np.isnan(found[2]).all()
    lists = np.array([[1, 2], [3, 4]])
    assert ltr_recall_by_user(lists, [{2, 9}, ()], cutoff=2).tolist()[:1] == [0.5]
    assert np.isnan(ltr_recall_by_user(lists, [{2}, ()], cutoff=2)[1])
    worth = mean_ecpm_by_user(np.array([[2.0, 4.0], [np.nan, np.nan]]), cutoff=2)
    assert worth[0] == 3
    assert np.isnan(worth[1])


def test_the_distance_of_mixes_is_the_total_variation_of_category_shares():
    lists = np.array([[1, 1, 2, 2], [5, 6, ABSENT, ABSENT], [3, 3, 3, 3], [ABSENT] * 4, [1, 1, 1, 1]])
    histories = [[2, 1], [5, 5, 5, 7, ABSENT], [4], [1], []]
    found = mix_distances(lists, np.concatenate(histories).astype(np.int64), np.cumsum([0, *map(len, histories)]))
    assert found[:3] == pytest.approx([0, (1 / 4 + 1 / 2 + 1 / 4) / 2, 1])
    assert np.isnan(found[3:]).all()


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3), max_size=5), st.lists(st.integers(0, 3), max_size=5)), max_size=7)
)
def test_the_distance_of_mixes_equals_the_plain_count(users):
    padded = np.array([[*row, *[ABSENT] * (5 - len(row))] for row, _ in users], np.int64).reshape(-1, 5)
    own = np.array([ad for _, row in users for ad in row], np.int64)
    found = mix_distances(padded, own, np.cumsum([0, *(len(row) for _, row in users)]))
    for (row, history), distance in zip(users, found.tolist(), strict=True):
        if row and history:
            apart = [abs(row.count(kind) / len(row) - history.count(kind) / len(history)) for kind in range(4)]
            assert distance == pytest.approx(sum(apart) / 2)
        else:
            assert np.isnan(distance)


def test_mean_ecpm_counts_lists_not_ads():
    values = np.array([[4.0, 2.0, 9.0], [1.0, np.nan, np.nan], [np.nan] * 3])
    assert mean_ecpm(values, cutoff=2) == (3 + 1) / 2
    assert mean_ecpm(values[2:], cutoff=2) == 0


def test_ltr_recall_leaves_out_users_without_labels():
    lists = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert ltr_recall(lists, [{1, 3}, (), [9, 7]], cutoff=2) == (1 / 2 + 1 / 2) / 2
    assert ltr_recall(lists, [(), (), ()], cutoff=2) == 0


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_dice_is_symmetric_and_one_for_equal_lists(first, second):
    assert dice(first, second) == dice(second, first)
    assert 0 <= dice(first, second) <= 1
    assert (dice(first, second) == 1) == (first == second)
