"""On-demand views: what of the function is kept, on what it runs, which types it can say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore, FeatureView, Field, RequestSource
from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int64, String

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, NOON, SCORE, SCORES, USER, joined, source, view

# feast 0.67 (2026-11): says so of every on-demand view, and how another mode would do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*mode:"),
]

FACTOR = 3.0


@pytest.fixture
def facts(tmp_path: Path) -> FeatureView:
    return view(source(tmp_path, {"user_id": [1, 2], "score": [0.5, 0.25], "scores": [[1.0]] * 2, "at": [NOON] * 2}))


def derived(of: Any, function: Callable[[Any], Any], field: Field, **options: Any) -> OnDemandFeatureView:
    """Make a view `scaled` of a function in Python mode."""
    function.__name__ = "scaled"
    return on_demand_feature_view(sources=[of], schema=[field], mode="python", **options)(function)


def scaled_online(tiny: FeatureStore, *rows: dict[str, Any]) -> list[Any]:
    return tiny.get_online_features(["scaled:scaled"], [*rows]).to_dict()["scaled"]


def test_only_the_source_of_the_function_is_kept_so_imports_go_into_its_body(
    store: MakeStore, facts: FeatureView
) -> None:
    def scaled(inputs):
        return {"scaled": [score * FACTOR for score in inputs["score"]]}

    tiny = store(facts, derived(facts, scaled, Field(name="scaled", dtype=Float64)))
    with pytest.raises(NameError, match="FACTOR"):
        scaled_online(tiny, {"user_id": 1})

    def inside(inputs):
        from tests.feast_contracts.test_on_demand import FACTOR

        return {"scaled": [None if score is None else score * FACTOR for score in inputs["score"]]}

    tiny = store(facts, derived(facts, inside, Field(name="scaled", dtype=Float64)))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    assert scaled_online(tiny, {"user_id": 1}) == [1.5]


def test_who_may_write_the_registry_executes_code_in_whoever_reads_it(
    store: MakeStore, facts: FeatureView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_SECRET", "safe")

    def scaled(inputs, _=__import__("os").environ.update(TINY_SECRET="stolen")):  # noqa: B008 - run when it is read
        return {"scaled": [1.0 for _ in inputs["score"]]}

    tiny = store(facts, derived(facts, scaled, Field(name="scaled", dtype=Float64)))
    monkeypatch.setenv("TINY_SECRET", "safe")
    FeatureStore(config=tiny.config).list_on_demand_feature_views()
    assert os.environ["TINY_SECRET"] == "stolen"


def test_apply_runs_the_function_on_made_up_values_without_join_keys(store: MakeStore, tmp_path: Path) -> None:
    facts = view(source(tmp_path, {"user_id": [1], "score": [0.5], "scores": [[1.0]], "at": [NOON]}), SCORE, SCORES)
    request = RequestSource(name="asked", schema=[Field(name="at_s", dtype=Float64)])
    seen = []

    def scaled(inputs):
        seen.append(inputs)
        return {"scaled": [1.0]}

    view_of_both = on_demand_feature_view(
        sources=[facts, request], schema=[Field(name="scaled", dtype=Float64)], mode="python"
    )(scaled)
    store(facts, view_of_both)
    names = {"score", "facts__score", "scores", "facts__scores", "at_s"}
    assert [set(inputs) for inputs in seen] == [names]  # no user_id
    assert (seen[0]["score"], seen[0]["scores"]) == ([1.0], [[1.0]])  # one row, of ones


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1.0, Float64), (1, Int64), ("a", String), (True, Bool), (b"a", Bytes), ([1.0], Array(Float32))],
    ids=str,
)
def test_python_mode_can_say(store: MakeStore, facts: FeatureView, value: Any, dtype: Any) -> None:
    def scaled(inputs):
        return {"scaled": [value for _ in inputs["score"]]}

    store(facts, derived(facts, scaled, Field(name="scaled", dtype=dtype)))


def test_a_python_number_cannot_be_float32_and_a_numpy_one_can(store: MakeStore, facts: FeatureView) -> None:
    def scaled(inputs):
        return {"scaled": [1.0 for _ in inputs["score"]]}

    with pytest.raises(Exception, match="not found in inferred list of features"):
        store(facts, derived(facts, scaled, Field(name="scaled", dtype=Float32)))

    def single(inputs):
        return {"scaled": [np.float32(1.0) for _ in inputs["score"]]}

    store(facts, derived(facts, single, Field(name="scaled", dtype=Float32)))


@pytest.mark.parametrize("said", [{"description": "Scaled."}, {"tags": {"unit": "s"}}], ids=str)
def test_a_feature_of_a_python_view_carries_neither_description_nor_tags(
    store: MakeStore, facts: FeatureView, said: dict[str, Any]
) -> None:
    def scaled(inputs):
        return {"scaled": [1.0 for _ in inputs["score"]]}

    with pytest.raises(Exception, match="not found in inferred list of features"):
        store(facts, derived(facts, scaled, Field(name="scaled", dtype=Float64, **said)))


def test_a_singleton_answers_many_rows_with_the_first_alone(store: MakeStore, facts: FeatureView) -> None:
    def scaled(inputs):
        return {"scaled": inputs["score"] * 2}

    tiny = store(facts, derived(facts, scaled, Field(name="scaled", dtype=Float64), singleton=True))
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    assert scaled_online(tiny, {"user_id": 1}, {"user_id": 2}) == [1.0]


def test_a_request_field_named_like_a_join_key_hides_the_key_online_but_not_offline(
    store: MakeStore, facts: FeatureView
) -> None:
    # feast issue 6790: a copy of the key goes by another name.
    def scaled(inputs):
        return {"scaled": [float(user) for user in inputs["user_id"]]}

    request = RequestSource(name="asked", schema=[Field(name="user_id", dtype=Int64)])
    both = on_demand_feature_view(sources=[facts, request], schema=[Field(name="scaled", dtype=Float64)], mode="python")
    tiny = store(facts, both(scaled))
    asked = {"user_id": [1], "event_timestamp": [NOON + HOUR]}
    assert joined(tiny, asked, "scaled:scaled", "facts:score")["scaled"].tolist() == [1.0]
    with pytest.raises(KeyError, match="Missing join key values"):
        tiny.get_online_features(["scaled:scaled", "facts:score"], [{"user_id": 1}])


def test_a_view_written_online_works_where_the_entity_s_name_is_not_its_join_key(
    store: MakeStore, facts: FeatureView
) -> None:
    # feast issue 5965, mended in 0.67.
    def scaled(inputs):
        return {"scaled": [2 * score for score in inputs["score"]]}

    written = derived(facts, scaled, Field(name="scaled", dtype=Float64), entities=[USER], write_to_online_store=True)
    tiny = store(facts, written)
    tiny.materialize(NOON - HOUR, NOON + HOUR)
    assert scaled_online(tiny, {"user_id": 1}, {"user_id": 2}) == [1.0, 0.5]
