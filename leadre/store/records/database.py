"""Connections to the system of record, and its migrations. LEADRE §4.4.1's databases.

Every session is bounded: a connection attempt, a statement and a wait for a lock each end in time. Time zone: UTC. Its
errors hold neither parameters nor rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from leadre.errors import ConfigError, Unavailable
from leadre.project import project_file
from leadre.store.records.discretion import DiscreetConnection

_PASSING = frozenset({"40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03"})
"""Serialization failure, deadlock, too many connections, lock timeout, shutdown, crash, starting up: retrying helps."""

FRESH_S = 0.5
"""A connection that answered so recently is not looked at before it is used again (ours): a refresh is four short
statements, and a look would be one more with each. A server that went away meanwhile is `Unavailable`, once."""

_OLD_SCHEMA = frozenset({"42P01", "42703"})
"""Unknown table, unknown column: our statements name none that the newest schema lacks."""


def connect(
    database_url: str,
    *,
    application_name: str = "leadre",
    connect_timeout_s: int = 5,
    statement_timeout_s: float = 600.0,
    lock_timeout_s: float = 10.0,
) -> Engine:
    """Return an engine over psycopg2. It connects when first used.

    Args:
        database_url: `postgresql://user:password@host:port/name`.
        application_name: what pg_stat_activity shows.
        connect_timeout_s: longest connection attempt.
        statement_timeout_s: longest statement; 0 sets no bound. Set-based statements over all users take minutes.
        lock_timeout_s: longest wait for a lock; 0 sets no bound.

    Raises:
        ConfigError: the URL is not one of PostgreSQL.
    """
    try:
        url = make_url(database_url)
    except ArgumentError:
        raise ConfigError("the database URL cannot be read; write postgresql://user:password@host:port/name") from None
    if url.get_backend_name() != "postgresql":
        raise ConfigError(f"the database URL starts with {url.drivername}://, only postgresql:// will do")
    own = url.query.get("options", "")
    options = [own if isinstance(own, str) else " ".join(own)] if own else []
    options += [
        "-c timezone=UTC",
        "-c plan_cache_mode=force_generic_plan",  # what is prepared (prepared.py) is for few rows from its first run on
        f"-c statement_timeout={statement_timeout_s * 1000:.0f}",
        f"-c lock_timeout={lock_timeout_s * 1000:.0f}",
    ]
    engine = create_engine(
        url.set(drivername="postgresql+psycopg2").difference_update_query(["options"]),
        hide_parameters=True,
        connect_args={
            "connection_factory": DiscreetConnection,
            "application_name": application_name,
            "connect_timeout": connect_timeout_s,
            "options": " ".join(options),
        },
    )
    event.listen(engine, "checkin", _note)
    event.listen(engine, "checkout", partial(_look, engine.dialect))
    return engine


def _note(_: object, record: ConnectionPoolEntry) -> None:
    record.info["used_s"] = time.monotonic()


def _look(dialect: Dialect, driver: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Look whether a connection still answers before it is given out, unless it did a moment ago."""
    used_s = record.info.get("used_s")  # none: it is new
    if used_s is None or time.monotonic() - used_s < FRESH_S:
        return
    try:
        dialect.do_ping(driver)
    except psycopg2.Error:
        raise DisconnectionError from None  # the pool connects anew


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection whose work is committed at the end, or undone when an exception leaves the block.

    Raises:
        Unavailable: PostgreSQL does not answer, or asks to try again (a lock timeout, a deadlock, a restart).
        ConfigError: the database has not the tables of this version.
    """
    with _errors_of_ours(engine), engine.begin() as connection:
        yield connection


@contextmanager
def session(engine: Engine) -> Iterator[Connection]:
    """Give a connection whose every statement is committed by itself. What the session locks is free at the end.

    Raises:
        Unavailable, ConfigError: as `transaction`.
    """
    with _errors_of_ours(engine), engine.connect() as connection:
        driver = cast(DiscreetConnection, connection.connection.dbapi_connection)
        driver.autocommit = True  # not by SQLAlchemy's isolation level: two round trips to take back
        try:
            yield connection
        finally:
            if not driver.closed:
                driver.autocommit = False


@contextmanager
def _errors_of_ours(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        lost = error.connection_invalidated or (code is None and "connection" in str(error.orig))
        said = str(error.orig).strip().splitlines()[0]
        where = f"{engine.url.host}:{engine.url.port or 5432}/{engine.url.database}"
        if code in _OLD_SCHEMA:
            raise ConfigError(
                f"the database at {where} lacks what this version needs ({said}): run `alembic upgrade head`"
            ) from error
        if lost or code in _PASSING or (code or "").startswith("08"):
            raise Unavailable(f"PostgreSQL at {where}: {said}; try again, or look whether it runs") from error
        raise
    except PoolTimeoutError as error:
        raise Unavailable("all connections to PostgreSQL are taken; try again, or ask less of it at once") from error


@contextmanager
def scratch_database(database_url: str, name: str) -> Iterator[str]:
    """Give a new migrated database on the same server, which is dropped at the end; one of that name before it as well.

    Args:
        database_url: of any database there, by a role that may create databases.
        name: of the new one: letters, digits and underscores.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    engine = connect(database_url).execution_options(isolation_level="AUTOCOMMIT")  # CREATE runs in no transaction
    quoted = engine.dialect.identifier_preparer.quote(name)

    def run(statement: str) -> None:
        with _errors_of_ours(engine), engine.connect() as connection:
            connection.exec_driver_sql(statement)

    try:
        run(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
        run(f"CREATE DATABASE {quoted}")
        url = make_url(database_url).set(database=name).render_as_string(hide_password=False)
        try:
            migrate(url)
            yield url
        finally:
            run(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
    finally:
        engine.dispose()


def migrate(database_url: str) -> None:
    """Bring the database to the newest schema, as `alembic upgrade head` does. Several at once wait for each other.

    Raises:
        ConfigError: the installation holds no migrations.
        Unavailable: PostgreSQL does not answer.
    """
    config = _alembic(database_url)
    engine = connect(database_url)
    try:
        with transaction(engine):  # alembic's own failure to connect would be a traceback
            pass
    finally:
        engine.dispose()
    command.upgrade(config, "head")


def migrations_current(database_url: str) -> bool:
    """Return whether the database has the newest schema.

    Raises:
        ConfigError: the installation holds no migrations.
        Unavailable: PostgreSQL does not answer.
    """
    newest = set(ScriptDirectory.from_config(_alembic(database_url)).get_heads())
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            return set(MigrationContext.configure(connection).get_current_heads()) == newest
    finally:
        engine.dispose()


def _alembic(database_url: str) -> Config:
    config = Config(project_file("alembic.ini"))
    config.attributes["database_url"] = database_url  # not an option: a % in the password would be interpolated
    return config
