"""Ranking features: right by hand, equal to a slow reference, the same in any batch, neutral on holes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.derivation import LIST_TTL_S, NEUTRAL, PREFIX_LEVELS, item_match, user_side
from leadre.domain.semantic_id import SemanticId

LIST: Mapping[str, Any] = {
    "retrieved_ad_ids": [11, 12, 13],
    "retrieved_sids": ["<a_1, b_1, c_1, d_1, e_0>", "<a_1, b_1, c_2, d_1, e_0>", "<a_2, b_1, c_1, d_1, e_0>"],
    "retrieved_probabilities": [0.5, 0.25, 0.25],
    "retrieved_first_categories": ["toys", "toys", "tea"],
    "retrieved_second_categories": ["cars", "dolls", "cars"],
    "retrieved_advertiser_ids": [7, 8, 7],
    "retrieved_embeddings": [1.0, 0.0, 0.0, 1.0, 3.0, 4.0],
    "index_version": "v1",
    "generated_at_s": 1000.0,
    "request_time_s": 1060.0,
}
TARGET: Mapping[str, Any] = {
    "ad_id": 12,
    "first_category": "toys",
    "second_category": "cars",
    "advertiser_id": 7,
    "sid": "<a_1, b_1, c_2, d_9, e_0>",
    "embedding": [2.0, 0.0],
    "ad_index_version": "v1",
}
WORKED = {
    "hit": 1,
    "rank": 2,
    "probability": 0.25,
    "prefix_mass_1": 0.75,
    "prefix_mass_2": 0.75,
    "prefix_mass_3": 0.25,
    "prefix_mass_4": 0.0,
    "longest_shared_prefix": 3,
    "first_category_mass": 0.75,
    "second_category_mass": 0.5,  # ad 13 is in another "cars"
    "advertiser_mass": 0.75,
    "max_cosine": 1.0,
    "mean_cosine": 0.5 * 1 + 0.25 * 0 + 0.25 * 0.6,
    "list_age_s": 60.0,
}
BY_SID = {name for name in NEUTRAL if "prefix" in name or "cosine" in name}


def one(**changes: Any) -> dict[str, Any]:
    """Derive one row: the worked example with some values changed."""
    derived = item_match({name: [value] for name, value in {**LIST, **TARGET, **changes}.items()})
    return {name: values[0] for name, values in derived.items()}


def test_the_worked_example() -> None:
    assert one() == pytest.approx(WORKED)
    assert all(type(one()[name]) is type(NEUTRAL[name]) for name in NEUTRAL)


@pytest.mark.parametrize("hole", [None, math.nan, np.nan])
def test_a_missing_list_is_neutral(hole: float | None) -> None:
    assert one(**dict.fromkeys(LIST, hole) | {"request_time_s": 1060.0}) == NEUTRAL


def test_an_empty_list_is_neutral_but_has_an_age() -> None:
    empty = {name: [] for name in LIST if name.startswith("retrieved")}
    assert one(**empty) == {**NEUTRAL, "list_age_s": 60.0}


@pytest.mark.parametrize("age_s", [-0.5, LIST_TTL_S + 0.5])
def test_a_list_from_the_future_or_older_than_its_ttl_is_neutral(age_s: float) -> None:
    assert one(request_time_s=1000.0 + age_s) == NEUTRAL


def test_a_list_exactly_as_old_as_its_ttl_counts() -> None:
    assert one(request_time_s=1000.0 + LIST_TTL_S) == pytest.approx({**WORKED, "list_age_s": LIST_TTL_S})


def test_without_a_request_time_all_but_the_age_is_derived() -> None:
    assert one(request_time_s=None) == pytest.approx({**WORKED, "list_age_s": -1.0})


def test_another_index_version_leaves_what_does_not_rest_on_sids() -> None:
    expected = {**WORKED, **{name: NEUTRAL[name] for name in BY_SID}}
    assert one(ad_index_version="v2") == pytest.approx(expected)
    assert one(ad_index_version=None, index_version=None) == pytest.approx(expected)


def test_an_unknown_ad_is_neutral_in_a_known_list() -> None:
    unknown = dict.fromkeys(TARGET) | {"ad_id": 999}
    assert one(**unknown) == {**NEUTRAL, "list_age_s": 60.0}
    assert one(**dict.fromkeys(TARGET)) == {**NEUTRAL, "list_age_s": 60.0}


def test_an_unknown_category_or_advertiser_matches_nothing() -> None:
    same = one(
        first_category="",
        second_category="",
        advertiser_id=0,
        retrieved_first_categories=["", "", ""],
        retrieved_second_categories=["", "", ""],
        retrieved_advertiser_ids=[0, 0, 0],
    )
    assert (same["first_category_mass"], same["second_category_mass"], same["advertiser_mass"]) == (0, 0, 0)


@pytest.mark.parametrize(
    "junk",
    [
        {"retrieved_probabilities": [0.5, 0.5]},
        {"retrieved_probabilities": [0.5, math.nan, 0.5]},
        {"retrieved_probabilities": [0.5, 1.5, 0.5]},
        {"retrieved_ad_ids": ["a", "b", "c"]},
        {"retrieved_ad_ids": [[11], [12], [13]]},
        {"retrieved_ad_ids": 5},
        {"retrieved_advertiser_ids": [None, 1, 2]},
    ],
)
def test_a_list_that_makes_no_sense_counts_as_absent(junk: Mapping[str, Any]) -> None:
    assert one(**junk) == NEUTRAL


@pytest.mark.parametrize(
    "junk",
    [
        {"sid": "hello world", "embedding": ["x", "y"]},
        {"sid": 5, "embedding": [1.0, 2.0, 3.0]},
        {"sid": "<a_, b_1>", "embedding": [math.inf, 0.0]},
        {"retrieved_sids": [None, "", "?"], "retrieved_embeddings": [1.0]},
        {"sid": "<a_9>", "embedding": []},
    ],
)
def test_junk_in_an_sid_or_embedding_is_neutral_in_these_features_alone(junk: Mapping[str, Any]) -> None:
    assert one(**junk) == pytest.approx({**WORKED, **{name: NEUTRAL[name] for name in BY_SID}})


def test_missing_columns_and_no_rows_are_no_error() -> None:
    assert item_match({}) == {name: [] for name in NEUTRAL}
    assert item_match({"ad_id": [1, 2]}) == {name: [value] * 2 for name, value in NEUTRAL.items()}


def test_arrays_and_lists_are_the_same() -> None:
    arrays = {name: np.array(value) for name, value in {**LIST, **TARGET}.items() if isinstance(value, list)}
    assert one(**arrays) == one()


def test_fewer_levels_leave_the_other_masses_zero() -> None:
    short = one(sid="<a_1, b_1, c_0>", retrieved_sids=["<a_1, b_1, c_0>", "<a_1, b_2, c_0>", "<a_2, b_1, c_0>"])
    assert [short[f"prefix_mass_{depth}"] for depth in (1, 2, 3, 4)] == [0.75, 0.5, 0.0, 0.0]
    assert short["longest_shared_prefix"] == 2  # the disambiguation code says nothing


def test_the_module_loads_neither_pandas_nor_feast() -> None:
    script = (
        "import sys, leadre.derivation; print(sorted({'pandas', 'feast', 'torch', 'sqlalchemy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- against the slow reference, on rows with every kind of hole ----


def reference(row: Mapping[str, Any], ttl_s: float = LIST_TTL_S) -> dict[str, Any]:
    """Derive one sound row as docs/features.md defines it: one loop over the list."""
    derived = dict(NEUTRAL)
    ids, asked, made = row["retrieved_ad_ids"], row["request_time_s"], row["generated_at_s"]
    age = math.nan if asked is None or made is None else asked - made
    if ids is None or age > ttl_s or age < 0:
        return derived
    if not math.isnan(age):
        derived["list_age_s"] = age
    cosines = []
    same_version = row["index_version"] is not None and row["index_version"] == row["ad_index_version"]
    width = len(row["retrieved_embeddings"]) // max(len(ids), 1)
    for place, ad_id in enumerate(ids):
        p = row["retrieved_probabilities"][place]
        if ad_id == row["ad_id"]:
            derived["probability"] += p
            derived["rank"] = derived["rank"] or place + 1
            derived["hit"] = 1
        same_first = bool(row["first_category"]) and row["retrieved_first_categories"][place] == row["first_category"]
        same_second = bool(row["second_category"]) and (
            row["retrieved_second_categories"][place] == row["second_category"]
        )
        derived["first_category_mass"] += p * same_first
        derived["second_category_mass"] += p * (same_first and same_second)
        same_advertiser = bool(row["advertiser_id"]) and (
            row["retrieved_advertiser_ids"][place] == row["advertiser_id"]
        )
        derived["advertiser_mass"] += p * same_advertiser
        if same_version and row["sid"] is not None:
            ours, theirs = SemanticId.parse(row["sid"]), SemanticId.parse(row["retrieved_sids"][place])
            shared = min(ours.shared_prefix(theirs), len(ours.codes) - 1, len(theirs.codes) - 1)
            derived["longest_shared_prefix"] = max(derived["longest_shared_prefix"], shared)
            for depth in range(1, PREFIX_LEVELS + 1):
                derived[f"prefix_mass_{depth}"] += p * (shared >= depth)
        if same_version and row["embedding"] is not None and len(row["embedding"]) == width:
            a, b = np.array(row["embedding"]), np.array(row["retrieved_embeddings"][place * width :][:width])
            norms = np.linalg.norm(a) * np.linalg.norm(b)
            cosines.append(a @ b / norms if norms else 0.0)
            derived["mean_cosine"] += p * cosines[-1]
    derived["max_cosine"] = max(cosines, default=0.0)
    return derived


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows over a few lists and targets, some of their parts missing."""

    def maybe(value: Any) -> Any:
        return value if draw(st.integers(0, 9)) else None

    def sid(levels: int) -> str:
        return str(SemanticId((*(draw(st.integers(0, 1)) for _ in range(levels)), 0)))

    def vector(width: int) -> list[float]:
        return draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=width, max_size=width))

    lists = []
    for _ in range(draw(st.integers(1, 3))):
        count, levels, width = draw(st.integers(0, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
        weights = np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), dtype=np.float64)
        lists.append(
            {
                "retrieved_ad_ids": maybe(draw(st.permutations(range(8)))[:count]),
                "retrieved_sids": [sid(levels) for _ in range(count)],
                "retrieved_probabilities": (weights / weights.sum() if count else weights).tolist(),
                "retrieved_first_categories": draw(
                    st.lists(st.sampled_from(["", "x", "y"]), min_size=count, max_size=count)
                ),
                "retrieved_second_categories": draw(
                    st.lists(st.sampled_from(["", "x", "z"]), min_size=count, max_size=count)
                ),
                "retrieved_advertiser_ids": draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)),
                "retrieved_embeddings": vector(count * width),
                "index_version": maybe("v1"),
                "generated_at_s": maybe(float(draw(st.integers(0, 9)))),
            }
        )
    return [
        {
            **draw(st.sampled_from(lists)),
            "ad_id": draw(st.integers(0, 9)),
            "first_category": draw(st.sampled_from([None, "", "x", "y"])),
            "second_category": draw(st.sampled_from([None, "", "x", "z"])),
            "advertiser_id": maybe(draw(st.integers(0, 2))),
            "sid": maybe(sid(draw(st.integers(1, 5)))),
            "embedding": maybe(vector(draw(st.integers(1, 3)))),
            "ad_index_version": draw(st.sampled_from(["v1", "v2", None])),
            "request_time_s": maybe(draw(st.sampled_from([4.0, 9.5, 7e5]))),
        }
        for _ in range(draw(st.integers(1, 7)))
    ]


@settings(max_examples=150, deadline=None)
@given(rows())
def test_every_row_is_as_the_reference_has_it_and_the_same_bits_in_any_batch(batch: list[dict[str, Any]]) -> None:
    derived = item_match({name: [row[name] for row in batch] for name in batch[0]})
    for number, row in enumerate(batch):
        got = {name: values[number] for name, values in derived.items()}
        alone = item_match({name: [value] for name, value in row.items()})
        assert got == {name: values[0] for name, values in alone.items()}
        assert got == pytest.approx(reference(row), abs=1e-12)

        masses = [got[f"prefix_mass_{depth}"] for depth in range(1, PREFIX_LEVELS + 1)]
        assert masses == sorted(masses, reverse=True)
        assert all(0 <= value <= 1 for name, value in got.items() if "mass" in name or name == "probability")
        assert got["hit"] == (got["rank"] >= 1)
        assert -1 <= got["mean_cosine"] <= got["max_cosine"] + 1e-12 or not got["max_cosine"]


def test_large_batches_are_cut_without_a_seam() -> None:
    n = 8192 + 3
    columns = {name: [value] * n for name, value in {**LIST, **TARGET}.items()}
    columns["ad_id"] = [11 + number % 4 for number in range(n)]
    derived = item_match(columns)
    assert derived["rank"] == [(1, 2, 3, 0)[number % 4] for number in range(n)]


# ---- user side ----


def test_the_user_side_by_hand() -> None:
    derived = user_side(
        counts=[2, 0, 1],
        log_probabilities=[math.log(0.03), math.log(0.01), -5.0],
        first_categories=["toys", "tea", "toys"],
        embeddings=np.array([[1, 0, 4], [0, 2, 4], [5, 6, 7]], dtype=np.float32),
        ecpms=[10.0, 20.0, 3.0],
    )
    assert derived["retrieved_probabilities"] == [pytest.approx([0.75, 0.25]), [], [1.0]]
    assert derived["retrieved_count"] == [2, 0, 1]
    assert derived["top_probability"] == pytest.approx([0.75, 0, 1])
    assert derived["entropy"] == pytest.approx([-0.75 * math.log(0.75) - 0.25 * math.log(0.25), 0, 0])
    assert derived["categories"] == [["toys", "tea"], [], ["toys"]]
    assert derived["category_probabilities"] == [pytest.approx([0.75, 0.25]), [], [1.0]]
    assert derived["category_concentration"] == pytest.approx([0.75, 0, 1])
    assert derived["mean_embedding"] == [pytest.approx([0.75, 0.5, 4]), [0, 0, 0], [5, 6, 7]]
    assert derived["expected_ecpm"] == pytest.approx([12.5, 0, 3])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(-700, 0), st.sampled_from("abc")), max_size=9), max_size=4))
def test_the_user_side_of_a_list_does_not_depend_on_the_lists_beside_it(lists: list[list[tuple[float, str]]]) -> None:
    def derive(chosen: list[list[tuple[float, str]]]) -> dict[str, list[Any]]:
        beams = [beam for of_user in chosen for beam in of_user]
        return user_side(
            counts=[len(of_user) for of_user in chosen],
            log_probabilities=[score for score, _ in beams],
            first_categories=[category for _, category in beams],
            embeddings=np.array([[score / 7, 1.0] for score, _ in beams], dtype=np.float32).reshape(-1, 2),
            ecpms=[-score for score, _ in beams],
        )

    together = derive(lists)
    for number, of_user in enumerate(lists):
        assert {name: values[number : number + 1] for name, values in together.items()} == derive([of_user])
        p = together["retrieved_probabilities"][number]
        assert sum(p) == pytest.approx(1 if of_user else 0)
        assert 0 <= together["entropy"][number] <= math.log(max(len(of_user), 1)) + 1e-9
        assert sum(together["category_probabilities"][number]) == pytest.approx(sum(p))
