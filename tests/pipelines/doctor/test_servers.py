"""PostgreSQL and Redis: without rights, behind in schema, forgetful, evicting, nearly full, with another clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Connection, text

from leadre.pipelines.doctor import servers
from leadre.pipelines.doctor.finding import Finding
from leadre.settings import Settings


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def now() -> datetime:
    return datetime.now(UTC)


def test_postgres_is_named_with_version_and_role_and_without_its_password(
    connection: Connection, settings: Settings
) -> None:
    (found,) = servers.postgres(connection, settings, now=now())
    assert found.state == "ok"
    assert "PostgreSQL 18" in found.said
    password = settings.database_url.split(":")[2].split("@")[0]
    assert password not in found.said


def test_a_role_without_rights_is_a_fault_that_names_them(connection: Connection, settings: Settings) -> None:
    connection.execute(text("REVOKE INSERT ON behaviors FROM CURRENT_USER"))  # of its own tables an owner may
    found = by_name(servers.postgres(connection, settings, now=now()))["rights"]
    assert found.state == "fault"
    assert "leadre lacks INSERT on behaviors" in found.said
    assert "roles.sql" in found.run


def test_an_empty_database_lacks_its_schema(settings: Settings, empty_database_url: str) -> None:
    assert servers.migrations(settings).state == "ok"
    found = servers.migrations(replace(settings, database_url=empty_database_url))
    assert (found.state, found.run) == ("fault", "alembic upgrade head")


def test_redis_that_keeps_everything_is_well(client: Redis, settings: Settings) -> None:
    found = servers.redis(client, settings, now=now())
    assert {it.state for it in found} == {"ok"}, found
    assert not any((settings.redis_url.split(":")[2].split("@")[0]) in it.said for it in found)


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [("appendonly", "no", "redis-persistence"), ("maxmemory-policy", "allkeys-lru", "redis-eviction")],
)
def test_redis_that_loses_things_is_a_fault_with_its_remedy(
    client: Redis, settings: Settings, name: str, value: str, check: str
) -> None:
    client.config_set(name, value)
    found = by_name(servers.redis(client, settings, now=now()))[check]
    assert found.state == "fault"
    assert found.run.startswith(f"redis-cli CONFIG SET {name}")


def test_redis_that_is_nearly_full_is_a_warning(client: Redis, settings: Settings) -> None:
    used: Any = client.info("memory")
    client.config_set("maxmemory", int(used["used_memory"] * 1.02))
    found = by_name(servers.redis(client, settings, now=now()))["redis-eviction"]
    assert found.state == "warning"
    assert "of its maxmemory" in found.said


@pytest.mark.parametrize(("seconds", "state"), [(30, "warning"), (-3600, "fault")])
def test_clocks_that_differ_are_said_of_either_server(
    connection: Connection, client: Redis, settings: Settings, seconds: float, state: str
) -> None:
    other = now() + timedelta(seconds=seconds)
    for found in (servers.postgres(connection, settings, now=other), servers.redis(client, settings, now=other)):
        assert by_name(found)["clock"].state == state
    assert servers.clock("Redis", other, now=other) == []
