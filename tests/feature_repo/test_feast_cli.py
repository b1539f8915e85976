"""Feast's own commands on the definitions, with nothing of ours but the environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.records.database import connect, transaction

ROOT = Path(__file__).parents[2]


def feast(environment: dict[str, str], *arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("feast")), "-c", "feature_repo", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.mark.slow
def test_apply_twice_then_materialize(settings: Settings, environment: dict[str, str]) -> None:
    database = connect(settings.database_url)
    with transaction(database) as connection:
        tables = "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema = ANY(:s)"
        schemas = {"s": ["public", "feast_registry"]}
        before = set(connection.execute(text(tables), schemas).scalars())
        connection.execute(
            text("INSERT INTO users (user_id, source_id, sex, event_at) VALUES (4, 'four', 'male', '2026-01-02')")
        )

    feast(environment, "apply")
    with transaction(database) as connection:
        new = set(connection.execute(text(tables), schemas).scalars()) - before
    assert {"feast_registry.feature_views", "feast_registry.on_demand_feature_views"} <= new
    assert all(name.startswith("feast_registry.") for name in new)  # none of Feast's tables among ours

    definitions = "SELECT feature_view_name, feature_view_proto FROM feast_registry.feature_views ORDER BY 1"
    with transaction(database) as connection:
        names = [row[0] for row in connection.execute(text(definitions))]
    feast(environment, "apply")
    with transaction(database) as connection:
        assert [row[0] for row in connection.execute(text(definitions))] == names

    feast(environment, "materialize-incremental", "2026-03-01T12:00:00")
    database.dispose()
    client = FeatureClient(settings.feature_repo, settings.feast_environment())
    response = client.store.get_online_features(["user_profile:sex"], [{"user_id": 4}]).to_dict()
    client.close()
    assert response["sex"] == ["male"]
