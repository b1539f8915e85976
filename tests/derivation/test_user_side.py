"""The user side as it is written: right by hand, the same bits whatever lists are beside it, nonsense refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadre.derivation import USER_NEUTRAL, pack, unpack
from leadre.derivation.lists import SHARE
from leadre.derivation.user_side import derive, directions, user_columns
from leadre.errors import InvalidInput
from tests.derivation.worlds import all_plain, facts

PER_LIST = (
    "counts",
    "generated_at_s",
    "behavior_at_s",
    "release",
    "index_version",
    "release_epochs",
    "behavior_sequences",
    "source",
)
THREE: dict[str, Any] = {
    "counts": [2, 0, 1],
    "ad_ids": [11, 12, 13],
    "log_probabilities": [math.log(0.03), math.log(0.01), -5.0],
    "codes": [[1, 0], [2, 0], [1, 0]],
    "first_categories": [1, 2, 1],
    "second_categories": [0, 0, 0],
    "category_names": ("", "toys", "tea"),
    "advertiser_ids": [7, 8, 0],
    "embeddings": np.array([[1, 0, 4], [0, 2, 4], [5, 6, 7]], dtype=np.float32),
    "ecpms": [10.0, 20.0, 3.0],
    "generated_at_s": [1000.5, 1001.0, 1002.0],
    "behavior_at_s": [math.nan, 5.0, 6.0],
    "release": "r",
    "index_version": ["v", "v", "w"],
}


def test_the_user_side_by_hand() -> None:
    lists = derive(**THREE)
    assert (lists.shares * SHARE).tolist() == pytest.approx([0.75, 0.25, 1])
    assert lists.shares[2] == 2**32 - 1  # all there is
    assert lists.entropy.tolist() == pytest.approx([-0.75 * math.log(0.75) - 0.25 * math.log(0.25), 0, 0], abs=1e-7)
    assert lists.expected_ecpm.tolist() == pytest.approx([12.5, 0, 3])
    assert lists.mean_embedding.tolist() == [pytest.approx([0.75, 0.5, 4]), [0, 0, 0], pytest.approx([5, 6, 7])]
    assert lists.directions.tolist() == [[32, 0, 127], [0, 64, 127], [91, 109, 127]]
    assert lists.releases == ("r", "r", "r")
    assert lists.index_versions == ("v", "v", "w")


def test_a_direction_of_nothing_or_of_no_number_is_zero() -> None:
    rows = np.array([[0, 0], [math.nan, 1], [math.inf, 1], [-3e38, 3e38], [1e-45, 0]], dtype=np.float32)
    assert directions(rows).tolist() == [[0, 0], [0, 0], [0, 0], [-127, 127], [127, 0]]
    assert directions(np.empty((3, 0), np.float32)).shape == (3, 0)


@given(facts())
def test_a_list_has_the_same_bits_whatever_lists_are_beside_it(of_lists: dict[str, Any]) -> None:
    together = all_plain(derive(**of_lists))
    start = 0
    for number, count in enumerate(of_lists["counts"]):
        ads = slice(start, start + count)
        alone = {
            name: value[number : number + 1] if name in PER_LIST else value[ads] for name, value in of_lists.items()
        }
        alone["category_names"] = of_lists["category_names"]
        assert all_plain(derive(**alone)) == [together[number]]
        start += count


@given(facts())
def test_probabilities_of_a_list_add_up_to_one_and_entropy_is_bounded(of_lists: dict[str, Any]) -> None:
    for count, of_list in zip(of_lists["counts"], all_plain(derive(**of_lists)), strict=True):
        assert abs(sum(of_list["shares"]) - (2**32 if count else 0)) <= max(count, 1)
        assert 0 <= of_list["entropy"] <= math.log(max(count, 1)) + 1e-6


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"log_probabilities": [0.0, math.nan, 0.0]}, "ad 12 has log-probability nan"),
        ({"log_probabilities": [0.0, 0.0, -math.inf]}, "ad 13 has log-probability -inf"),
        ({"ad_ids": [1, 2]}, r"columns of \[2, 3\] ads"),
        ({"generated_at_s": [1.0, 2.0]}, "one for each of 3 lists"),
        ({"release": ["a", "b"]}, "one for each of 3 lists"),
        ({"counts": [2, 0, 2]}, "for lists of 4"),
        ({"generated_at_s": [1.0, math.nan, 2.0]}, "generated at no time"),
        ({"codes": [[1, 0], [2, 65_535], [0, 0]]}, "65535"),
        ({"codes": [[1, 0], [-1, 0], [0, 0]]}, "-1"),
    ],
)
def test_what_is_no_list_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        derive(**{**THREE, **change})


# ---- as it is read ----


def test_the_user_side_as_it_is_read_by_hand() -> None:
    columns = user_columns(
        derive(**THREE), list_of_row=np.array([0, 1, 2, 0]), request_time_s=[1001.0] * 2 + [1003, 9e9]
    )
    row = {name: values[0] for name, values in columns.items()}
    shares = derive(**THREE).shares[:2].tolist()
    assert list(row) == list(USER_NEUTRAL)
    assert row == {
        "retrieved_ad_ids": [11, 12],
        "retrieved_sids": ["<a_1, b_0>", "<a_2, b_0>"],
        "retrieved_log_probabilities": [float(np.float32(math.log(0.03))), float(np.float32(math.log(0.01)))],
        "retrieved_probabilities": [share / 2**32 for share in shares],
        "retrieved_first_categories": ["toys", "tea"],
        "retrieved_second_categories": ["", ""],
        "retrieved_advertiser_ids": [7, 8],
        "retrieved_embeddings": [32 / 127, 0.0, 1.0, 0.0, 64 / 127, 1.0],
        "retrieved_count": 2,
        "top_probability": shares[0] / 2**32,
        "entropy": pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
        "categories": ["toys", "tea"],
        "category_probabilities": [share / 2**32 for share in shares],
        "category_concentration": shares[0] / 2**32,
        "mean_embedding": [0.75, 0.5, 4.0],
        "expected_ecpm": pytest.approx(12.5),
        "generated_at_s": 1000.5,
        "behavior_at_s": 0.0,
        "release": "r",
        "index_version": "v",
    }
    for empty_or_expired in (1, 3):
        found = {name: values[empty_or_expired] for name, values in columns.items()}
        assert found == {name: [] if value == () else value for name, value in USER_NEUTRAL.items()}
    assert columns["behavior_at_s"][2] == 6.0


def test_categories_of_equal_probability_are_in_the_order_of_their_names() -> None:
    lists = derive(
        **{**THREE, "counts": [0, 0, 3], "log_probabilities": [0.0, 0.0, 0.0], "first_categories": [1, 2, 0]}
    )
    columns = user_columns(lists, list_of_row=np.array([2]), request_time_s=1002.0)
    assert columns["categories"] == [["", "tea", "toys"]]


@given(facts(), st.lists(st.sampled_from([0.0, 1e9, 4e9, math.nan]), min_size=5, max_size=5))
def test_the_user_side_of_a_row_does_not_depend_on_the_rows_beside_it(
    of_lists: dict[str, Any], at: list[float]
) -> None:
    lists = unpack([*pack(derive(**of_lists)), None])
    of_row, asked = np.arange(5) % len(lists), np.array(at)
    columns = user_columns(lists, list_of_row=of_row, request_time_s=asked)
    for row in range(5):
        (alone,) = [user_columns(lists, list_of_row=of_row[row : row + 1], request_time_s=asked[row : row + 1])]
        assert {name: values[row] for name, values in columns.items()} == {name: v[0] for name, v in alone.items()}
        count, masses = columns["retrieved_count"][row], columns["category_probabilities"][row]
        assert sum(masses) == pytest.approx(1 if count else 0)
        assert columns["category_concentration"][row] == max(masses, default=0.0)
        assert columns["top_probability"][row] == max(columns["retrieved_probabilities"][row], default=0.0)
        assert len(columns["retrieved_sids"][row]) == count
