"""TLS by URL alone: Redis and PostgreSQL behind certificates, and a server with one; Redis by a user of its ACL."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import redis
from click.testing import CliRunner
from kombu import Connection
from sqlalchemy import text

from leadre.cli import cli
from leadre.errors import ConfigError, Unavailable
from leadre.retrieval.refresh_queue import RefreshQueue
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.online_rows import connect_online
from leadre.store.records.database import connect, transaction

Door = Callable[..., AbstractContextManager[int]]


@pytest.fixture
def tls_redis(redis_url: str, door: Door, certificates: Any) -> Iterator[str]:
    """The URL of the test's Redis behind TLS, without the authority that signed its certificate."""
    parts = urlsplit(redis_url)
    assert parts.port
    with door(parts.port, certificates) as port:
        yield f"rediss://:{parts.password}@127.0.0.1:{port}/0?ssl_cert_reqs=required"


@pytest.fixture
def tls_database(database_url: str, door: Door, certificates: Any) -> Iterator[str]:
    """The URL of the test's database behind TLS, likewise."""
    parts = urlsplit(database_url)
    assert parts.port
    with door(parts.port, certificates, postgres=True) as port:
        yield f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}?sslmode=verify-full"


def test_queue_online_store_and_broker_reach_a_redis_behind_tls(
    tls_redis: str, certificates: Any, settings: Settings
) -> None:
    url = f"{tls_redis}&ssl_ca_certs={quote(str(certificates.authority), safe='')}"
    assert RefreshQueue.connect(url).mark([5]) == 1
    feast = replace(settings, redis_url=url).feast_environment()["LEADRE_FEAST_REDIS"]
    with connect_online(feast) as online:
        assert online.ping()
    with Connection(url) as broker:
        broker.ensure_connection(max_retries=1)


def test_a_redis_whose_certificate_nobody_vouches_for_is_not_spoken_to(tls_redis: str, strangers: Any) -> None:
    for known in ("", f"&ssl_ca_certs={quote(str(strangers.authority), safe='')}"):
        with pytest.raises(Unavailable):
            RefreshQueue.connect(tls_redis + known).mark([5])


def test_queue_and_online_store_log_in_as_a_user_of_the_acl(redis_url: str, settings: Settings) -> None:
    with redis.Redis.from_url(redis_url) as admin:
        admin.acl_setuser("app", enabled=True, passwords=["+pass:word"], keys=["*"], commands=["+@all", "-flushall"])
        try:
            parts = urlsplit(redis_url)
            url = f"redis://app:{quote('pass:word', safe='')}@{parts.hostname}:{parts.port}/0"
            assert RefreshQueue.connect(url).mark([5]) == 1
            with connect_online(replace(settings, redis_url=url).feast_environment()["LEADRE_FEAST_REDIS"]) as online:
                assert online.acl_whoami() == "app"
                with pytest.raises(redis.exceptions.NoPermissionError):
                    online.flushall()
        finally:
            admin.acl_deluser("app")


def test_the_system_of_record_is_reached_behind_tls_and_its_certificate_is_checked(
    tls_database: str, certificates: Any, strangers: Any
) -> None:
    def asked(url: str) -> int:
        database = connect(url)
        try:
            with transaction(database) as connection:
                return int(connection.scalar(text("SELECT 7")) or 0)
        finally:
            database.dispose()

    assert asked(f"{tls_database}&sslrootcert={quote(str(certificates.authority))}") == 7
    with pytest.raises(Unavailable):
        asked(f"{tls_database}&sslrootcert={quote(str(strangers.authority))}")


def test_feast_s_registry_and_offline_store_take_the_mode_of_the_url(
    applied: Settings, door: Door, certificates: Any, strangers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = urlsplit(applied.database_url)
    assert parts.port
    with door(parts.port, certificates, postgres=True) as port:
        url = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}{parts.path}?sslmode=verify-full"
        behind = replace(applied, database_url=url)
        monkeypatch.setenv("PGSSLROOTCERT", str(certificates.authority))
        FeatureClient(behind.feature_repo, behind.feast_environment()).close()
        monkeypatch.setenv("PGSSLROOTCERT", str(strangers.authority))
        with pytest.raises(Exception, match="certificate verify failed"):
            FeatureClient(behind.feature_repo, behind.feast_environment()).close()


def test_a_server_with_a_certificate_and_keys_speaks_tls_and_asks_for_a_key(
    environment: dict[str, str], certificates: Any, tmp_path: Path
) -> None:
    made = CliRunner().invoke(cli, ["keys", "new", "shop"])
    (tmp_path / "keys.txt").write_text(made.stdout)
    tls = ["--ssl-certfile", str(certificates.server), "--ssl-keyfile", str(certificates.key)]
    process = subprocess.Popen(
        [sys.executable, "-m", "leadre", "serve", "user-server", "--host", "0.0.0.0", "--port", "0", *tls],
        env={**environment, "LEADRE_API_KEYS_FILE": str(tmp_path / "keys.txt")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        found = re.search(r"on https://0\.0\.0\.0:([0-9]+)", process.stdout.readline())
        assert found
        context = ssl.create_default_context(cafile=str(certificates.authority))
        with httpx.Client(base_url=f"https://127.0.0.1:{found[1]}", verify=context, timeout=60) as client:
            assert client.get("/healthz").status_code == 200
            for path in ("/v1/users/5/ads", "/metrics"):
                assert client.get(path).status_code == 401
            key = {"Authorization": f"Bearer {made.stderr.split()[-1]}"}
            for path in ("/v1/users/5/ads", "/metrics"):
                assert client.get(path, headers=key).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{found[1]}/healthz")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "LEADRE_API_KEYS_FILE"),
        (["--ssl-keyfile", "{key}"], "--ssl-keyfile needs --ssl-certfile"),
        (["--ssl-certfile", "{server}", "--ssl-keyfile", "{other}"], "belong together"),
    ],
)
def test_a_server_that_would_stand_open_or_speak_no_tls_does_not_start(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    certificates: Any,
    strangers: Any,
    arguments: list[str],
    said: str,
) -> None:
    for name in [*os.environ]:
        if name.startswith("LEADRE_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    files = {"key": certificates.key, "server": certificates.server, "other": strangers.key}
    given = [argument.format(**files) for argument in arguments]
    done = CliRunner().invoke(cli, ["serve", "user-server", "--port", "0", *given])
    assert isinstance(done.exception, ConfigError), done.output
    assert said in str(done.exception)
