"""docs/features.md lists every field of every view and service: what a reader finds there is what Feast knows.

How the page is read: a heading `## view (§...)` or `## view, view: ...` begins the table of those views, whose rows are
`| `field` | type | ...`, up to the next heading of any depth. Where views share a table, `*_x` is `<first word of the
view>_x`. The services are rows of `| `service` | key | `view`, `other` (`field`, `field`), ... |`; without parentheses
a service has all fields of a view.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest

# feast 0.67 (2026-11): says at import of a definition that on-demand views are experimental.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"
ROW = re.compile(r"^\| `([\w*]+)` \| ([^|]+?) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def defined() -> Iterator[list[object]]:
    """Everything that the modules of the feature repository define, imported as Feast does: by bare name."""
    repo = ROOT / "feature_repo"
    before = set(sys.modules)
    sys.path.insert(0, str(repo))
    try:
        yield [
            value
            for path in sorted(repo.glob("*.py"))
            for value in vars(importlib.import_module(path.stem)).values()
            if not isinstance(value, ModuleType)
        ]
    finally:
        sys.path.remove(str(repo))
        for path in repo.glob("*.py"):
            if path.stem not in before:
                del sys.modules[path.stem]


@pytest.fixture(scope="module")
def views(defined: list[object]) -> dict[str, dict[str, str]]:
    """View -> field -> type, as Feast knows them."""
    from feast import FeatureView
    from feast.on_demand_feature_view import OnDemandFeatureView

    found = [value for value in defined if isinstance(value, FeatureView | OnDemandFeatureView)]
    return {view.name: {field.name: type_of(field.dtype) for field in view.features} for view in found}


@pytest.fixture(scope="module")
def services(defined: list[object]) -> dict[str, dict[str, list[str]]]:
    """Service -> view -> fields, as Feast knows them."""
    from feast import FeatureService

    return {
        service.name: {view.name: [field.name for field in view.features] for view in service.feature_view_projections}
        for service in defined
        if isinstance(service, FeatureService)
    }


def test_the_page_has_a_table_of_every_view_and_of_nothing_else(views: dict[str, dict[str, str]]) -> None:
    assert sorted(documented_views(PAGE.read_text(), views)) == sorted(views)


def test_the_page_names_every_field_of_every_view_with_its_type_in_order(views: dict[str, dict[str, str]]) -> None:
    page = documented_views(PAGE.read_text(), views)
    for view, fields in views.items():
        assert list(page.get(view, {}).items()) == list(fields.items()), f"docs/features.md, the table of {view}"


def test_the_page_names_every_service_with_its_views_and_fields(
    views: dict[str, dict[str, str]], services: dict[str, dict[str, list[str]]]
) -> None:
    assert documented_services(PAGE.read_text(), views) == services


def test_a_page_that_differs_in_a_field_a_type_or_a_service_is_noticed(views: dict[str, dict[str, str]]) -> None:
    page = """
| `other_v1` | user_id | `user_profile`, `ad_features` (`bid`, `live`) | a ranker |
## user_profile (§4.2.1 (2))
| `age` | Float64 | years | |
## ad_behavior_sequence, content_behavior_sequence (§4.2.1)
| `*_item_ids` | Array(Int64) | | ads |
### Its bytes
| `not_a_field` | u1 | |
## Ids
| `not_a_field` | Int64 | |
"""
    assert documented_views(page, views) == {
        "user_profile": {"age": "Float64"},
        "ad_behavior_sequence": {"ad_item_ids": "Array(Int64)"},
        "content_behavior_sequence": {"content_item_ids": "Array(Int64)"},
    }
    assert documented_services(page, views) == {
        "other_v1": {"user_profile": list(views["user_profile"]), "ad_features": ["bid", "live"]}
    }


def documented_views(page: str, views: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """View -> field -> type, in the page's order."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading = re.split(r"[:(\n]", section, maxsplit=1)[0]
        table = section.split("\n### ")[0]
        named = [name.strip(" `") for name in heading.split(",")]
        for view in named:
            if view in views:
                first_word = view.partition("_")[0]
                found[view] = {name.replace("*", first_word): kind.strip(" `") for name, kind in ROW.findall(table)}
    return found


def documented_services(page: str, views: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Service -> view -> fields, in the page's order."""
    found = {}
    for service, of_views in re.findall(r"^\| `(\w+_v\d+)` \|[^|]*\|([^|]*)\|", page, re.MULTILINE):
        parts = re.findall(r"`(\w+)`(?: \(((?:`\w+`,? ?)+)\))?", of_views)
        found[service] = {
            view: re.findall(r"\w+", chosen) if chosen else list(views.get(view, {})) for view, chosen in parts
        }
    return found


def type_of(dtype: object) -> str:
    """Return what feature_repo calls a type: `Int64`, `Array(String)`."""
    from feast import types

    if isinstance(dtype, types.Array):
        return f"Array({type_of(dtype.base_type)})"
    return next(name for name, value in vars(types).items() if value is dtype)
