"""The definitions: names that are an API, documented, and one with the code that derives the features."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from leadre.derivation import LIST_TTL_S, NEUTRAL, USER_NEUTRAL
from leadre.store.records.tables import metadata

# feast 0.67 (2026-11): says at import of a definition that on-demand views are experimental.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

ROOT = Path(__file__).parents[2]
MODULES = ("entities", "sources", "user_views", "ad_views", "retrieval_views", "services")


@pytest.fixture(scope="module")
def definitions() -> Iterator[dict[str, ModuleType]]:
    """The modules, imported as Feast does: by bare name."""
    loaded = {}
    try:
        for name in MODULES:
            spec = importlib.util.spec_from_file_location(name, ROOT / "feature_repo" / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = loaded[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded
    finally:
        for name in loaded:
            del sys.modules[name]


def test_every_module_of_the_repo_is_listed_here() -> None:
    assert {path.stem for path in (ROOT / "feature_repo").glob("*.py")} == set(MODULES)


def test_the_services_have_the_names_and_views_that_consumers_ask_for(definitions: dict[str, ModuleType]) -> None:
    services = definitions["services"]
    views = {
        name: [view.name for view in getattr(services, name).feature_view_projections]
        for name in ("prompt_context_v1", "retrieval_list_v1", "ranker_features_v1")
    }
    assert views == {
        "prompt_context_v1": [
            "user_profile",
            "interest_summary",
            "ad_behavior_sequence",
            "content_behavior_sequence",
        ],
        "retrieval_list_v1": ["retrieved_ad_features"],
        "ranker_features_v1": ["retrieved_ad_features", "ad_features", "item_match"],
    }


def test_no_service_has_two_features_of_one_name(definitions: dict[str, ModuleType]) -> None:
    for service in vars(definitions["services"]).values():
        for_service = [f.name for view in getattr(service, "feature_view_projections", ()) for f in view.features]
        assert len(for_service) == len(set(for_service))


def test_every_view_has_a_description_an_owner_and_its_place_in_the_paper(definitions: dict[str, ModuleType]) -> None:
    for view in _views(definitions):
        assert view.description, view.name
        assert view.owner, view.name
        assert view.tags["paper"].startswith("§"), view.name
    for view in _views(definitions):
        on_demand = view.name in ("retrieved_ad_features", "item_match")
        assert on_demand or all(field.description for field in view.features), view.name


def test_the_on_demand_views_have_the_features_that_the_code_derives(definitions: dict[str, ModuleType]) -> None:
    views = definitions["retrieval_views"]
    words = {int: "Int64", float: "Float64", str: "String"}
    assert _fields(views.item_match) == {name: words[type(value)] for name, value in NEUTRAL.items()}
    fields = _fields(views.retrieved_ad_features)
    assert list(fields) == list(USER_NEUTRAL)
    for name, value in USER_NEUTRAL.items():
        assert fields[name] == words[type(value)] if value != () else fields[name].startswith("Array("), name
    assert views.retrieved_ads.ttl == timedelta(seconds=LIST_TTL_S)


def test_the_views_read_columns_that_their_tables_have(definitions: dict[str, ModuleType]) -> None:
    tables = {"user_profile": "users", "interest_summary": "interest_summaries", "ad_features": "ads"}
    for view in _views(definitions):
        if view.name in tables:
            assert {field.name for field in view.features} <= set(metadata.tables[tables[view.name]].columns.keys())
    assert _fields(definitions["retrieval_views"].retrieved_ads) == {"retrieved_list": "Bytes"}


def _fields(view: object) -> dict[str, str]:
    return {field.name: _type(field.dtype) for field in view.features}


def _views(definitions: dict[str, ModuleType]) -> list:
    names = ("user_profile", "interest_summary", "ad_behavior_sequence", "content_behavior_sequence")
    retrieval = ("retrieved_ads", "retrieved_ad_features", "item_match")
    return [
        *(getattr(definitions["user_views"], name) for name in names),
        *(getattr(definitions["ad_views"], name) for name in ("ad_features", "ad_index")),
        *(getattr(definitions["retrieval_views"], name) for name in retrieval),
    ]


def _type(dtype: object) -> str:
    inner = getattr(dtype, "base_type", None)
    name = str(inner if inner is not None else dtype).rpartition(".")[2]
    words = ("Int64", "Float64", "Float32", "String", "Bool", "Bytes")
    word = next(word for word in words if name.upper().startswith(word.upper()))
    return f"Array({word})" if inner is not None else word
