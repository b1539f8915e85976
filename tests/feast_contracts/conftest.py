"""Stores for the contracts with Feast: each test makes its own, in its folder.

A test that fails after an upgrade says what Feast does otherwise now. Then look who relies on it, in `feature_repo/`
and `leadre/store/features/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from feast import FeatureStore, RepoConfig

from leadre.settings import Settings
from tests.feast_contracts.tiny import USER

MakeStore = Callable[..., FeatureStore]


@pytest.fixture
def store(tmp_path: Path) -> MakeStore:
    """Makes a store of some objects: registry in a file, SQLite online, files joined by Dask, unless told otherwise."""

    def make(*objects: Any, **config: Any) -> FeatureStore:
        made = FeatureStore(
            config=RepoConfig(
                **{
                    "project": "tiny",
                    "provider": "local",
                    "registry": {"path": str(tmp_path / "registry.db"), "cache_ttl_seconds": 0},
                    "online_store": {"type": "sqlite", "path": str(tmp_path / "online.db")},
                    "offline_store": {"type": "dask"},
                    "entity_key_serialization_version": 3,
                    "repo_path": tmp_path,
                    **config,
                }
            )
        )
        made.apply([USER, *objects])
        return made

    return make


@pytest.fixture
def redis_store(store: MakeStore, redis_url: str) -> MakeStore:
    """Makes stores whose online half is the Redis of the tests."""
    known = Settings(home=Path(), database_url="postgresql://h/n", redis_url=redis_url, feature_repo=Path())
    address = known.feast_environment()["LEADRE_FEAST_REDIS"]

    def make(*objects: Any, **online: Any) -> FeatureStore:
        return store(*objects, online_store={"type": "redis", "connection_string": address, **online})

    return make


@pytest.fixture
def postgres(empty_database_url: str) -> Iterator[psycopg2.extensions.cursor]:
    """An empty database."""
    connection = psycopg2.connect(empty_database_url)
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


@pytest.fixture
def postgres_store(store: MakeStore, postgres: psycopg2.extensions.cursor, empty_database_url: str) -> MakeStore:
    """Makes stores whose offline half is that database."""
    known = Settings(home=Path(), database_url=empty_database_url, redis_url="redis://h", feature_repo=Path())
    variables = {key.removeprefix("LEADRE_FEAST_DB_"): value for key, value in known.feast_environment().items()}
    names = {"host": "HOST", "port": "PORT", "database": "NAME", "user": "USER", "password": "PASSWORD"}
    offline = {"type": "postgres", "sslmode": "prefer", **{name: variables[key] for name, key in names.items()}}

    def make(*objects: Any, **config: Any) -> FeatureStore:
        return store(*objects, offline_store=offline, **config)

    return make
