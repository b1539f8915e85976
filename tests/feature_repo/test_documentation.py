"""What a consumer reads in the registry: every object says what it is, whose, and in which unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureStore

from leadre.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    return FeatureStore(repo_path=str(applied.feature_repo))


def objects(registry: FeatureStore) -> Iterator[tuple[str, Any]]:
    """Every object of ours; Feast adds an entity for views without one."""
    listed = {
        "entity": [entity for entity in registry.list_entities() if not entity.name.startswith("__")],
        "source": registry.list_data_sources(),
        "view": registry.list_feature_views(),
        "on-demand view": registry.list_on_demand_feature_views(),
        "service": registry.list_feature_services(),
    }
    for kind, found in listed.items():
        assert found, kind
        for one in found:
            yield f"{kind} {one.name}", one


def test_everything_has_a_description_and_an_owner(registry: FeatureStore) -> None:
    assert [name for name, one in objects(registry) if not (one.description.endswith(".") and one.owner)] == []


def test_everything_but_a_source_says_where_the_paper_has_it(registry: FeatureStore) -> None:
    said = {name: one.tags.get("paper", "") for name, one in objects(registry) if not name.startswith("source")}
    assert [name for name, paper in said.items() if not paper.startswith("§")] == []


def test_every_stored_feature_has_a_description(registry: FeatureStore) -> None:
    fields = [(view.name, field) for view in registry.list_feature_views() for field in view.features]
    assert [(view, field.name) for view, field in fields if not field.description.endswith(".")] == []


def test_a_feature_has_the_unit_that_the_docs_give_it(registry: FeatureStore) -> None:
    page = (ROOT / "docs/features.md").read_text()
    documented = dict(re.findall(r"^\| `([\w*]+)` \| [^|]+ \| ([^|]*) \|", page, re.MULTILINE))
    units = {}
    for field in (field for view in registry.list_feature_views() for field in view.features):
        of_a_domain = re.sub(r"^(ad|content)_", "*_", field.name)
        unit = documented.get(field.name) or documented.get(of_a_domain, "")
        units[field.name] = (field.tags.get("unit", ""), unit.strip())
    wrong = {name: pair for name, pair in units.items() if not pair[1].lower().startswith(pair[0].lower())}
    missing = {name: unit for name, (tag, unit) in units.items() if unit and not tag}
    assert wrong == {}
    assert missing == {}
