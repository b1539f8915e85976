import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.evaluation.baselines import FARTHEST, CoVisitation, Histories, Popularity
from leadre.evaluation.ranking import ABSENT

rows = st.lists(st.lists(st.integers(1, 15), max_size=8), min_size=1, max_size=10)


def histories(lists):
    return Histories(
        offsets=np.cumsum([0, *map(len, lists)]), items=np.array([item for row in lists for item in row], np.int64)
    )


def plain_popularity(train, history, k, seen):
    counts = {}
    for item in (item for row in train for item in row):
        counts[item] = counts.get(item, 0) + 1
    ranked = sorted(counts, key=lambda item: (-counts[item], item))
    return [item for item in ranked if seen == "keep" or item not in history][:k]


def plain_co_visitation(train, history, k, seen):
    scores = {}
    for row in train:
        for later, target in enumerate(row):
            for earlier, item in enumerate(row[:later]):
                for at, asked in enumerate(history):
                    if asked == item and later - earlier <= FARTHEST:
                        scores[target] = scores.get(target, 0) + 1 / (later - earlier) / (len(history) - at)
    ranked = sorted(scores, key=lambda item: (-round(scores[item], 9), item))
    first = [item for item in ranked if seen == "keep" or item not in history][:k]
    return first, scores


@pytest.mark.parametrize("seen", ["keep", "leave_out"])
@given(train=rows, asked=rows, k=st.integers(1, 6))
def test_popularity_equals_the_plain_one(seen, train, asked, k):
    found = Popularity.fit(histories(train)).top(histories(asked), k, seen=seen)
    for row, history in zip(found.tolist(), asked, strict=True):
        assert [item for item in row if item != ABSENT] == plain_popularity(train, history, k, seen)


@pytest.mark.parametrize("seen", ["keep", "leave_out"])
@given(train=rows, asked=rows, k=st.integers(1, 6))
def test_co_visitation_equals_the_plain_one_and_fills_up_with_popular_items(seen, train, asked, k):
    found = CoVisitation.fit(histories(train)).top(histories(asked), k, seen=seen)
    for row, history in zip(found.tolist(), asked, strict=True):
        wanted, scores = plain_co_visitation(train, history, k, seen)
        given_back = [item for item in row if item != ABSENT]
        assert len(given_back) == len(set(given_back))
        head = given_back[: len(wanted)]
        assert [round(scores.get(item, 0), 9) for item in head] == [round(scores[item], 9) for item in wanted]
        rest = [item for item in plain_popularity(train, history, 99, seen) if item not in head]
        assert given_back[len(wanted) :] == rest[: k - len(wanted)]


def test_items_nobody_trained_on_are_ignored():
    train = histories([[1, 2], [1, 2], [1, 3]])
    asked = histories([[99], [1, 99], []])
    assert CoVisitation.fit(train).top(asked, 2, seen="leave_out").tolist() == [[1, 2], [2, 3], [1, 2]]


def test_an_empty_training_set_recommends_nothing():
    for baseline in (Popularity, CoVisitation):
        found = baseline.fit(histories([[]])).top(histories([[4], []]), 3, seen="leave_out")
        assert (found == ABSENT).all()


def test_repeats_are_recognised():
    assert histories([[1, 2, 3], [1, 2]]).seen == "leave_out"
    assert histories([[1, 2, 1], [1, 2]]).seen == "keep"
    assert histories([[]]).seen == "leave_out"
