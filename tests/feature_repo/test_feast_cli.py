"""Feast's own commands on the definitions, with nothing of ours but the environment.

In this process, except for the two servers: `feast` takes five seconds to start.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import psycopg2
import pytest
from feast import FeatureStore
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import SavedDatasetPostgreSQLStorage
from sqlalchemy import Connection, text

from leadre.errors import LeadreError
from leadre.services import Services
from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.records.database import connect, transaction

# feast 0.67 (2026-11): says at every import of a definition that on-demand views are experimental.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

ROOT = Path(__file__).parents[2]
REPO = ROOT / "feature_repo"
TABLES = "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema = ANY(:schemas)"
SCHEMAS = {"schemas": ["public", "feast_registry"]}


def feast(*arguments: str) -> str:
    return run_feast(REPO, *arguments)


def add_user(connection: Connection, user: int, *, sex: str, at: str) -> None:
    row = {"user": user, "name": str(user), "sex": sex, "at": at}
    connection.execute(
        text("INSERT INTO users (user_id, source_id, sex, event_at) VALUES (:user, :name, :sex, :at)"), row
    )


def sex_online(*users: int) -> list[str | None]:
    rows = [{"user_id": user} for user in users]
    return FeatureStore(repo_path=str(REPO)).get_online_features(["user_profile:sex"], rows).to_dict()["sex"]


@pytest.fixture
def fresh(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The variables of `leadre env`, for a database that nothing was applied to."""
    for name, value in settings.feast_environment().items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def known(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The variables of `leadre env`, for a database that the definitions were applied to."""
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    return applied


def test_plan_tells_what_apply_will_do_and_a_second_apply_changes_nothing(fresh: Settings) -> None:
    database = connect(fresh.database_url)
    with transaction(database) as connection:
        before = set(connection.execute(text(TABLES), SCHEMAS).scalars())

    planned = feast("plan")
    assert "Created feature view user_profile" in planned
    assert "Created on demand feature view item_match" in planned

    feast("apply")
    with transaction(database) as connection:
        new = set(connection.execute(text(TABLES), SCHEMAS).scalars()) - before
    assert {"feast_registry.feature_views", "feast_registry.on_demand_feature_views"} <= new
    assert all(name.startswith("feast_registry.") for name in new)  # none of Feast's tables among ours

    assert "No changes to registry" in feast("plan")
    feast("apply")
    assert "No changes to registry" in feast("plan")
    database.dispose()


def test_materialize_then_materialize_incremental(known: Settings) -> None:
    database = connect(known.database_url)
    with transaction(database) as connection:
        add_user(connection, 4, sex="male", at="2026-01-02")
        add_user(connection, 5, sex="female", at="2026-02-02")
    feast("materialize", "2026-01-01T00:00:00", "2026-01-31T00:00:00")
    assert sex_online(4, 5) == ["male", None]

    feast("materialize-incremental", "2026-03-01T00:00:00")
    assert sex_online(4, 5) == ["male", "female"]

    with transaction(database) as connection:
        add_user(connection, 6, sex="female", at="2026-03-02")
    feast("materialize-incremental", "2026-03-03T00:00:00", "--views", "user_profile")
    assert sex_online(4, 5, 6) == ["male", "female", "female"]
    database.dispose()


def test_the_registry_is_listed_and_described(known: Settings) -> None:
    assert "retrieved_ads" in feast("feature-views", "list")
    assert "ranker_features_v1" in feast("feature-services", "list")
    assert "leadre.derivation" in feast("on-demand-feature-views", "describe", "item_match")
    assert "A person who sees ads" in feast("entities", "list")


# feast 0.67 (2026-11): warns of what its own command uses.
@pytest.mark.filterwarnings("ignore:We will be deprecating the usage of spec.userDefinedFunction:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:list_project_metadata is deprecated:DeprecationWarning")
def test_registry_dump_is_what_feast_0_67_cannot_do_for_python_views(known: Settings) -> None:
    with pytest.raises(LeadreError, match="registry-dump failed: 'substraitPlan'"):
        feast("registry-dump")


def test_validate_says_that_no_reference_is_there(known: Settings) -> None:
    with pytest.raises(LeadreError, match="Validation reference nothing does not exist"):
        feast("validate", "-f", "retrieval_list_v1", "-r", "nothing", "2026-01-01T00:00:00", "2026-02-01T00:00:00")


# feast 0.67 (2026-11): says so of every saved dataset.
@pytest.mark.filterwarnings("ignore:Saving dataset is an experimental feature:RuntimeWarning")
def test_a_training_set_is_saved_in_postgresql_and_listed(known: Settings) -> None:
    database = connect(known.database_url)
    with transaction(database) as connection:
        add_user(connection, 4, sex="male", at="2026-01-02")
    store = FeatureStore(repo_path=str(REPO))
    asked = pd.DataFrame({"user_id": [4], "event_timestamp": [datetime(2026, 2, 1, tzinfo=UTC)]})
    joined = store.get_historical_features(entity_df=asked, features=["user_profile:sex"])
    saved = store.create_saved_dataset(
        from_=joined, name="january", storage=SavedDatasetPostgreSQLStorage(table_ref="saved_january")
    )
    assert saved.to_df()["sex"].tolist() == ["male"]
    assert "january" in feast("saved-datasets", "list")
    database.dispose()


@pytest.fixture(scope="module")
def servers(services: Services, applied_database: str) -> Iterator[dict[str, str]]:
    """`feast serve` and `feast ui` as processes, started together; by name, where each listens."""
    name = "feast_servers"
    administrator = psycopg2.connect(services.database_url)
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {applied_database} STRATEGY file_copy")
    settings = Settings(
        home=ROOT,
        database_url=f"{services.database_url.rpartition('/')[0]}/{name}",
        redis_url=services.redis_url,
        feature_repo=REPO,
    )
    environment = {**os.environ, **settings.feast_environment()}
    ports = {command: free_port() for command in ("serve", "ui")}
    started = [
        subprocess.Popen(
            [Path(sys.executable).with_name("feast"), "-c", REPO, command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command, port in ports.items()
    ]
    try:
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in settings.feast_environment().items():
                patch.setenv(variable, value)
            yield {command: f"http://127.0.0.1:{port}" for command, port in ports.items()}
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        with administrator.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
        administrator.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(url: str, body: object = None) -> bytes:
    """Ask until the server is up."""
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    request.data = None if body is None else json.dumps(body).encode()
    for attempt in range(1200):
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read()
        except (urllib.error.URLError, ConnectionError) as error:
            if attempt == 1199 or isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.1)
    raise AssertionError


@pytest.mark.slow
def test_feast_serve_answers_a_request_for_features(servers: dict[str, str], redis_url: str) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    store = FeatureStore(repo_path=str(REPO))
    view = store.get_feature_view("user_profile")
    profile = {field.name: [None] for field in view.features} | {"user_id": [4], "sex": ["male"]}
    store.write_to_online_store("user_profile", pd.DataFrame({**profile, "event_at": [at], "created_at": [at]}))

    body = {"features": ["user_profile:sex"], "entities": {"user_id": [4, 5]}}
    answered = json.loads(answer(f"{servers['serve']}/get-online-features", body))
    values = dict(zip(answered["metadata"]["feature_names"], answered["results"], strict=True))
    assert values["user_id"]["values"] == [4, 5]
    assert values["sex"]["values"] == ["male", None]


@pytest.mark.slow
def test_feast_ui_shows_the_definitions_without_the_network(servers: dict[str, str]) -> None:
    pytest.importorskip("grpc", reason="feast ui needs grpcio: pip install 'leadre[ui]'")
    entities = json.loads(answer(f"{servers['ui']}/api/v1/entities?project=leadre"))
    assert {entity["spec"]["name"] for entity in entities["entities"]} >= {"user", "ad"}
    page = answer(f"{servers['ui']}/").decode()
    assert "Feast Feature Store" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
