"""How Feast reads a repository and its feature_store.yaml, and what its programs default to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click import Command
from feast.cli.serve import serve_command
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import BATCH_ENGINE_CLASS_FOR_TYPE, load_repo_config

from leadre.errors import LeadreError
from leadre.store.features.command import run_feast
from tests.feast_contracts.tiny import NOON, source

ENTITIES = """
from feast import Entity, ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
"""
SOURCES = """
from feast import FileSource

rows = FileSource(path="rows.parquet", timestamp_field="at")
"""
VIEWS = """
from feast import FeatureView, Field
from feast.types import Float64
from tiny_entities import user
from tiny_sources import rows

facts = FeatureView(name="facts", entities=[user], schema=[Field(name="score", dtype=Float64)], source=rows)
"""
SERVICES = """
from feast import FeatureService
from {views} import facts

everything = FeatureService(name="everything", features=[facts])
"""
DEFINITIONS = {"tiny_entities": ENTITIES, "tiny_sources": SOURCES, "tiny_views": VIEWS}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a repository `tiny_repo` that Python finds as a package too."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> Path:
        folder = tmp_path / "tiny_repo"
        folder.mkdir(exist_ok=True)
        (folder / "feature_store.yaml").write_text(
            f"project: tiny\nprovider: local\nregistry: {tmp_path}/registry.db\noffline_store: {{type: dask}}\n"
            f"online_store: {{type: sqlite, path: {tmp_path}/online.db}}\nentity_key_serialization_version: 3\n"
        )
        source(folder, {"user_id": [1], "score": [0.5], "at": [NOON]})
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return folder

    return write


def apply(folder: Path) -> str:
    return run_feast(folder, "apply")


def test_definitions_imported_by_their_bare_names_are_one(repository: Callable[..., Path]) -> None:
    folder = repository(**DEFINITIONS, tiny_services=SERVICES.format(views="tiny_views"))
    assert "Created feature service everything" in apply(folder)


def test_definitions_imported_through_their_package_are_two_and_refused(repository: Callable[..., Path]) -> None:
    folder = repository(**DEFINITIONS, tiny_services=SERVICES.format(views="tiny_repo.tiny_views"))
    with pytest.raises(LeadreError, match="feast apply failed") as refused:
        apply(folder)
    assert type(refused.value.__cause__).__name__ == "ConflictingFeatureViewNames"


def test_every_python_file_below_the_folder_is_imported_but_what_feastignore_names(
    repository: Callable[..., Path],
) -> None:
    folder = repository(tiny_entities=ENTITIES, notes__deep="raise RuntimeError('imported')")
    with pytest.raises(LeadreError, match="imported"):
        apply(folder)
    (folder / ".feastignore").write_text("notes\n")
    apply(folder)


def test_variables_are_expanded_and_unknown_ones_stay_as_they_are(
    repository: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repository()
    yaml = folder / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("project: tiny", "project: ${TINY_PROJECT}"))
    monkeypatch.setenv("TINY_PROJECT", "named")
    assert load_repo_config(folder, yaml).project == "named"
    monkeypatch.delenv("TINY_PROJECT")
    with pytest.raises(Exception, match=r"Project name, \$\{TINY_PROJECT\}, should only have"):
        load_repo_config(folder, yaml)


def test_an_unknown_setting_of_a_store_is_refused(repository: Callable[..., Path]) -> None:
    folder = repository()
    yaml = folder / "feature_store.yaml"
    yaml.write_text(yaml.read_text().replace("{type: dask}", "{type: dask, nonsense: 1}"))
    with pytest.raises(Exception, match="nonsense"):
        load_repo_config(folder, yaml)


def test_a_plain_postgresql_url_of_the_registry_means_psycopg_3() -> None:
    assert SqlRegistryConfig(path="postgresql://h/d").path == "postgresql+psycopg://h/d"
    assert SqlRegistryConfig(path="postgresql+psycopg2://h/d").path == "postgresql+psycopg2://h/d"


def test_feast_serve_starts_its_process_again_after_a_thousand_requests() -> None:
    command: Command = serve_command
    assert {option.name: option.default for option in command.params}["max_requests"] == 1000


def test_the_compute_engines_are_these() -> None:
    assert set(BATCH_ENGINE_CLASS_FOR_TYPE) == {
        *("local", "ray.engine", "spark.engine", "spark_application", "k8s", "lambda", "flink.engine"),
        *("snowflake.engine", "trino.engine", "trino"),
    }
