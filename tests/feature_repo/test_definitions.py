"""The definitions: names that are an API, documented, and one with the code that derives the features."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from leadre.derivation import LIST_TTL_S, NEUTRAL
from leadre.store.features import retrieval_log
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
        "retrieval_list_v1": ["retrieved_ads"],
        "ranker_features_v1": ["retrieved_ads", "ad_features", "item_match"],
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
        assert view.name == "item_match" or all(field.description for field in view.features), view.name


def test_the_on_demand_view_has_the_features_that_the_code_derives(definitions: dict[str, ModuleType]) -> None:
    fields = {field.name: _type(field.dtype) for field in definitions["retrieval_views"].item_match.features}
    assert fields == {name: "Int64" if isinstance(value, int) else "Float64" for name, value in NEUTRAL.items()}
    assert definitions["retrieval_views"].retrieved_ads.ttl == timedelta(seconds=LIST_TTL_S)


def test_the_views_read_columns_that_their_tables_have(definitions: dict[str, ModuleType]) -> None:
    tables = {"user_profile": "users", "interest_summary": "interest_summaries", "ad_features": "ads"}
    for view in _views(definitions):
        if view.name in tables:
            assert {field.name for field in view.features} <= set(metadata.tables[tables[view.name]].columns.keys())
    stored = {field.name for field in definitions["retrieval_views"].retrieved_ads.features}
    assert stored - {"generated_at_s", "behavior_at_s"} == set(retrieval_log.COLUMNS) - {
        "user_id",
        "event_at",
        "behavior_at",
    }


def _views(definitions: dict[str, ModuleType]) -> list:
    names = ("user_profile", "interest_summary", "ad_behavior_sequence", "content_behavior_sequence")
    return [
        *(getattr(definitions["user_views"], name) for name in names),
        *(getattr(definitions["ad_views"], name) for name in ("ad_features", "ad_index")),
        *(getattr(definitions["retrieval_views"], name) for name in ("retrieved_ads", "item_match")),
    ]


def _type(dtype: object) -> str:
    inner = getattr(dtype, "base_type", None)
    name = str(inner if inner is not None else dtype).rpartition(".")[2]
    plain = {"INT64": "Int64", "FLOAT64": "Float64", "FLOAT32": "Float32", "STRING": "String", "BOOL": "Bool"}
    word = next(word for key, word in plain.items() if name.upper().startswith(key))
    return f"Array({word})" if inner is not None else word
