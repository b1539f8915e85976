import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.errors import InvalidInput
from leadre.evaluation.dice import dice_by_user
from leadre.evaluation.diversity import dice
from leadre.evaluation.ranking import ABSENT


def test_dice_by_hand():
    first = np.array([[1, 2, 3, 4], [5, 6, ABSENT, ABSENT], [7, ABSENT, ABSENT, ABSENT], [ABSENT] * 4])
    second = np.array([[3, 4, 5], [6, 5, ABSENT], [ABSENT] * 3, [ABSENT] * 3])
    # 2 * 2 / (4 + 3); the order does not count; nothing in common; two empty lists
    assert dice_by_user(first, second).tolist() == pytest.approx([4 / 7, 1, 0, 1])


lists = st.lists(st.lists(st.integers(0, 9), max_size=6, unique=True), min_size=5, max_size=5)


def padded(rows, width):
    return np.array([[*row, *[ABSENT] * (width - len(row))] for row in rows], np.int64)


@given(first=lists, second=lists)
def test_all_users_at_once_have_the_printed_formulas_figures(first, second):
    found = dice_by_user(padded(first, 6), padded(second, 8))
    assert found.tolist() == [dice(a, b) for a, b in zip(first, second, strict=True)]


def test_another_number_of_lists_is_refused():
    with pytest.raises(InvalidInput, match="2 lists to compare with 3"):
        dice_by_user(np.zeros((2, 4), np.int64), np.zeros((3, 4), np.int64))
