"""Fixtures of all tests: real PostgreSQL and Redis servers, started once; a database of its own for every test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import hypothesis
import psycopg2
import pytest
import redis

from leadre import services as embedded
from leadre.services import Services
from leadre.settings import Settings
from leadre.store.records.database import migrate
from tests.browser import chromium

__all__ = ["chromium"]

# A test says what is right, not how fast this machine is today.
hypothesis.settings.register_profile("leadre", deadline=None)
hypothesis.settings.load_profile("leadre")

ROOT = Path(__file__).parents[1]
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with slow tests begin: no process of several is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Both servers, in a folder of their own, fast instead of durable."""
    home = Path(tempfile.mkdtemp(prefix="leadre-tests-"))
    home.chmod(0o711)  # under root the servers' account passes through it
    try:
        yield embedded.up(home, durable=False)
    finally:
        embedded.down(home)
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_database(services: Services) -> str:
    """A migrated, empty database to clone; nobody stays connected to it."""
    _administer(services, "CREATE DATABASE template_leadre")
    migrate(_url(services, "template_leadre"))
    return "template_leadre"


@pytest.fixture
def database_url(services: Services, template_database: str) -> Iterator[str]:
    """A fresh migrated database, dropped after the test."""
    name = f"test_{next(_numbers)}"
    _administer(services, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    try:
        yield _url(services, name)
    finally:
        _administer(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def applied_database(services: Services, template_database: str) -> str:
    """A migrated database to which `feast apply` was applied, to clone: applying takes seconds, cloning does not."""
    _administer(services, f"CREATE DATABASE template_feast TEMPLATE {template_database} STRATEGY file_copy")
    settings = Settings(
        home=ROOT,
        database_url=_url(services, "template_feast"),
        redis_url=services.redis_url,
        feature_repo=ROOT / "feature_repo",
    )
    command = [Path(sys.executable).with_name("feast"), "-c", ROOT / "feature_repo", "apply"]
    subprocess.run(command, env={**os.environ, **settings.feast_environment()}, check=True, capture_output=True)
    return "template_feast"


@pytest.fixture
def applied_database_url(services: Services, applied_database: str) -> Iterator[str]:
    """A fresh migrated database with an applied feature store, dropped after the test."""
    with cloned(services, applied_database) as url:
        yield url


@pytest.fixture
def empty_database_url(services: Services) -> Iterator[str]:
    """A fresh database without any table, dropped after the test."""
    name = f"empty_{next(_numbers)}"
    _administer(services, f"CREATE DATABASE {name}")
    try:
        yield _url(services, name)
    finally:
        _administer(services, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(services: Services) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    return services.redis_url


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    """Settings over a folder, a database and a Redis of the test's own."""
    return Settings(
        home=tmp_path / "home", database_url=database_url, redis_url=redis_url, feature_repo=ROOT / "feature_repo"
    )


@pytest.fixture
def applied(settings: Settings, applied_database_url: str) -> Settings:
    """Settings over a database with an applied feature store."""
    return replace(settings, database_url=applied_database_url)


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """The environment of a subprocess under `settings`: `alembic`, `feast`, `celery`, `leadre`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("LEADRE_")}
    return {
        **inherited,
        "LEADRE_HOME": str(settings.home),
        "LEADRE_DATABASE_URL": settings.database_url,
        "LEADRE_REDIS_URL": settings.redis_url,
        "LEADRE_FEATURE_REPO": str(settings.feature_repo),
        **settings.feast_environment(),
    }


@contextmanager
def cloned(services: Services, template: str) -> Iterator[str]:
    """Give a copy of a database, dropped afterwards. For fixtures that live longer than a test."""
    name = f"applied_{next(_numbers)}"
    _administer(services, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield _url(services, name)
    finally:
        _administer(services, f"DROP DATABASE {name} WITH (FORCE)")


def _url(services: Services, database: str) -> str:
    return f"{services.database_url.rpartition('/')[0]}/{database}"


def _administer(services: Services, statement: str) -> None:
    connection = psycopg2.connect(services.database_url)
    try:
        connection.autocommit = True  # CREATE DATABASE runs in no transaction
        connection.cursor().execute(statement)
    finally:
        connection.close()
