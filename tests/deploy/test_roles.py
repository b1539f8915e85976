"""deploy/postgres/roles.sql on a PostgreSQL of its own: each role can do its work, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
import redis
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from leadre import services as embedded
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.users import Profile
from leadre.pipelines.forget import forget
from leadre.pipelines.retention import drop_old_months
from leadre.services import postgres
from leadre.settings import Settings
from leadre.store.features.client import FeatureClient
from leadre.store.features.online_rows import connect_online
from leadre.store.features.point_in_time.join import SCHEMA
from leadre.store.person.online import Online
from leadre.store.person.whom import Person
from leadre.store.records import catalog, events, summaries
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.partitions import PARTITIONED, ensure_months
from leadre.store.release.records import promote, record_index, record_release

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Settings]:
    """Settings of the owner over servers of the module's own, whose roles are those of the file."""
    home = Path(tempfile.mkdtemp(prefix="leadre-roles-"))
    home.chmod(0o711)
    try:
        started = embedded.up(home, durable=False)
        postgres.stop(started.folder)
        data, programs = postgres._data(started.folder), postgres._launcher(started.folder)
        postgres._single_user(data, programs, "postgres", f"ALTER ROLE {postgres.ROLE} SUPERUSER")
        made = embedded.up(home, durable=False)
        administrator = psycopg2.connect(made.database_url)
        administrator.autocommit = True
        roles = (ROOT / "deploy/postgres/roles.sql").read_text()
        with administrator.cursor() as cursor:
            for _ in range(2):  # running it again is harmless
                cursor.execute(roles)
            for role in ("owner", "app", "feast", "reader"):
                cursor.execute(f"ALTER ROLE leadre_{role} PASSWORD 'of-{role}'")
        administrator.close()
        owner = Settings(
            home=home,
            database_url=of_role(made.database_url, "owner"),
            redis_url=made.redis_url,
            feature_repo=ROOT / "feature_repo",
        )
        migrate(owner.database_url)
        subprocess.run(
            [Path(sys.executable).with_name("feast"), "-c", owner.feature_repo, "apply"],
            env={**os.environ, **owner.feast_environment()},
            check=True,
            capture_output=True,
        )
        yield owner
    finally:
        embedded.down(home)
        shutil.rmtree(home)


def of_role(url: str, role: str) -> str:
    _, _, rest = url.partition("@")
    return f"postgresql://leadre_{role}:of-{role}@{rest}"


@contextmanager
def acting_as(prepared: Settings, role: str) -> Iterator[Connection]:
    database = connect(of_role(prepared.database_url, role))
    try:
        with database.begin() as connection:
            yield connection
    finally:
        database.dispose()


def test_the_app_does_what_servers_and_workers_do(prepared: Settings) -> None:
    app = replace(prepared, database_url=of_role(prepared.database_url, "app"))
    database = connect(app.database_url)
    long_ago = NOW - timedelta(days=700)
    behavior = Behavior(user_id=5, domain=Domain.CONTENT, action=Action.WATCH, item_id=1, occurred_at=NOW)
    with transaction(database) as connection:
        catalog.upsert_users(connection, [Profile(user_id=5), Profile(user_id=6)], event_at=NOW)
        assert events.append_behaviors(connection, [behavior], arrived_at=NOW) == 1
        events.upsert_behaviors(connection, [replace(behavior, ordinal=7)], arrived_at=NOW)
        summaries.write_summaries(connection, now=datetime.now(UTC), window_days=90)
        for table in PARTITIONED:
            ensure_months(connection, table, [long_ago, NOW])
        record_index(connection, "index-1", uri="", recipe={}, quality={})
        record_release(connection, "first", index_version="index-1", uri="", recipe={}, metrics={})
        promote(connection, "first")
    dropped = drop_old_months(database, now=NOW, days=400, export=prepared.home / "archive")
    assert len(dropped) == len(PARTITIONED)
    assert all(month.exported and month.exported.is_file() for month in dropped)
    features = FeatureClient(app.feature_repo, app.feast_environment())
    features.materialize(now=datetime.now(UTC))
    assert features.contexts([5], now=datetime.now(UTC))[0].behaviors
    with redis.Redis.from_url(app.redis_url) as client, connect_online(features.servers.online) as online:
        places = Online(features=online, others=client, project="leadre", tags=("{leadre:",))
        assert forget(Person.named(6), database=database, online=places, settle_s=0).left_in_all == 0
    features.close()
    database.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE behaviors",
        "DROP TABLE partitions.{month}",
        "TRUNCATE behaviors",
        "ALTER TABLE behaviors ADD COLUMN more text",
        "ALTER TABLE behaviors DISABLE TRIGGER ALL",
        "DROP TRIGGER users_changed ON users",
        "CREATE TABLE public.more (it text)",
        "CREATE FUNCTION public.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE partitions.more (it text)",
        "DROP FUNCTION drop_month(text)",
        "DROP SCHEMA feast_registry CASCADE",
        "CREATE SCHEMA more",
        "CREATE ROLE more",
        "ALTER ROLE leadre_owner PASSWORD 'x'",
        "SET ROLE leadre_owner",
        "COPY behaviors TO PROGRAM 'cat'",
        "COPY behaviors TO '/tmp/behaviors'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT drop_month('behaviors')",
        "SELECT drop_month('retrieval_log_1999_01; DROP TABLE behaviors')",
        "SELECT make_month('behaviors', '2026-01-01')",
        "SELECT make_month('retrieval_log', '2026-01-02')",
    ],
)
def test_the_app_can_do_no_harm_to_tables(prepared: Settings, statement: str) -> None:
    with acting_as(prepared, "owner") as connection:
        ensure_months(connection, "retrieval_log", [NOW])
        month = connection.scalar(
            text("SELECT relname FROM pg_class WHERE relname LIKE 'retrieval\\_log\\_20%' LIMIT 1")
        )
    with pytest.raises(DBAPIError) as caught, acting_as(prepared, "app") as connection:
        connection.execute(text(statement.format(month=month)))
    assert getattr(caught.value.orig, "pgcode", "") in ("42501", "22023")  # may not, or no such month


def test_a_search_path_of_the_caller_s_changes_nothing_for_the_functions(prepared: Settings) -> None:
    with acting_as(prepared, "app") as connection:
        connection.execute(text("CREATE TEMP TABLE pg_class (relname text, relnamespace oid, oid oid)"))
        connection.execute(text("SET LOCAL search_path = pg_temp, public"))
        connection.execute(text("SELECT make_month('retrieval_log', '2031-02-01')"))
        connection.execute(text("SELECT drop_month('retrieval_log_2031_02')"))


def test_the_role_of_joins_reads_and_makes_scratch_tables_and_writes_nothing(prepared: Settings) -> None:
    with acting_as(prepared, "feast") as connection:
        assert connection.scalar(text("SHOW enable_nestloop")) == "off"
        connection.execute(text(f"CREATE UNLOGGED TABLE {SCHEMA}.scratch AS SELECT user_id FROM behaviors"))
        connection.execute(text(f"DROP TABLE {SCHEMA}.scratch"))
    for statement in ("DELETE FROM behaviors", "INSERT INTO ad_deletions VALUES (1)", "SELECT drop_month('x')"):
        with pytest.raises(DBAPIError, match="permission denied"), acting_as(prepared, "feast") as connection:
            connection.execute(text(statement))


def test_the_reader_reads_and_nothing_else(prepared: Settings) -> None:
    with acting_as(prepared, "reader") as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) is not None
        assert connection.scalar(text("SHOW default_transaction_read_only")) == "on"
    for statement in ("DELETE FROM behaviors", "CREATE TEMP TABLE x (it text)", f"CREATE TABLE {SCHEMA}.x (it text)"):
        with pytest.raises(DBAPIError), acting_as(prepared, "reader") as connection:
            connection.execute(text(f"SET TRANSACTION READ WRITE; {statement}"))
