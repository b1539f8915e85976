"""The feature store: never applied, another than feature_repo, old, wiped, out of bounds."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from feast import FeatureStore
from redis import Redis
from sqlalchemy import Connection, text

from leadre.pipelines.doctor import features
from leadre.serving.metrics import publish
from leadre.settings import Settings
from leadre.store.features.materialization.definitions import register
from leadre.store.features.rehydration import MARKER


def test_a_registry_that_was_never_applied_is_told_from_one_that_differs(
    settings: Settings, applied: Settings, tmp_path: Path
) -> None:
    never = features.registry(settings)
    assert never.state == "fault"
    assert "nothing was applied" in never.said
    assert never.run == 'eval "$(leadre env)" && feast -c feature_repo apply'
    assert features.registry(applied).state == "ok"
    changed = tmp_path / "feature_repo"
    shutil.copytree(applied.feature_repo, changed)
    services = changed / "services.py"
    services.write_text(services.read_text().replace("retrieval_list_v1", "retrieval_list_v9"))
    found = features.registry(replace(applied, feature_repo=changed))
    assert found.state == "fault"
    assert "retrieval_list_v9" in found.said


def test_what_was_materialized_is_no_change_of_the_registry(applied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in applied.feast_environment().items():
        monkeypatch.setenv(name, value)
    store = FeatureStore(repo_path=str(applied.feature_repo))
    register(store, ["user_profile", "ad_features"], until=datetime.now(UTC))
    assert features.registry(applied).state == "ok"


def test_a_feature_repository_that_cannot_be_read_is_a_fault(applied: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "feature_repo"
    shutil.copytree(applied.feature_repo, broken)
    (broken / "services.py").write_text("raise ValueError('not python of ours')\n")
    found = features.registry(replace(applied, feature_repo=broken))
    assert found.state == "fault"
    assert "feast plan failed" in found.said


def _materialized(connection: Connection, *, started: datetime, finished: datetime | None) -> None:
    connection.execute(
        text("""
            INSERT INTO materializations (view, written_from, waiting_from, until, next_written_from,
                                          next_waiting_from, entities, started_at, finished_at)
            VALUES ('user_profile', 0, 0, now(), 0, 0, 0, :started, :finished)
        """),
        {"started": started, "finished": finished},
    )


def test_materialization_is_told_by_its_age(connection: Connection) -> None:
    now = datetime.now(UTC)
    never = features.materialization(connection, now=now)
    assert (never.state, never.run) == ("fault", "leadre materialize")
    _materialized(connection, started=now - timedelta(hours=3), finished=now - timedelta(hours=3))
    late = features.materialization(connection, now=now)
    assert late.state == "warning"
    assert "3 h ago" in late.said
    assert features.materialization(connection, now=now - timedelta(hours=2, minutes=55)).state == "ok"


def test_a_materialization_that_does_not_end_is_a_warning(connection: Connection) -> None:
    now = datetime.now(UTC)
    _materialized(connection, started=now - timedelta(hours=5), finished=None)
    found = features.materialization(connection, now=now)
    assert found.state == "warning"
    assert "has not ended" in found.said


def test_a_wiped_online_store_is_a_fault(connection: Connection, client: Redis) -> None:
    assert features.online(connection, client).state == "ok"
    marker = uuid4()
    connection.execute(text("INSERT INTO online_marker (marker) VALUES (:marker)"), {"marker": marker})
    wiped = features.online(connection, client)
    assert (wiped.state, wiped.run) == ("fault", "leadre rehydrate")
    client.set(MARKER, str(marker))
    assert features.online(connection, client).state == "ok"


def test_what_the_worker_measured_last_is_glanced_at(client: Redis) -> None:
    now = datetime.now(UTC)
    assert features.quality(client, now=now).state == "warning"
    checked = ("leadre_feature_checked_timestamp_seconds", (("what", "state"),), time.time() - 600)
    publish(client, "state", [checked, ("leadre_feature_out_of_bounds", (("what", "state"),), 0.0)])
    assert features.quality(client, now=now).state == "ok"
    publish(client, "state", [checked, ("leadre_feature_out_of_bounds", (("what", "state"),), 2.0)])
    found = features.quality(client, now=now)
    assert (found.state, found.run) == ("warning", "leadre features check")
    assert "2 figures" in found.said
    assert "10 min" in found.said
