"""Connections: bounded in time, in UTC, and their loss told apart from other errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from leadre.errors import ConfigError, Unavailable
from leadre.services.process import free_port
from leadre.store.records import database
from leadre.store.records.database import connect, migrate, migrations_current, transaction
from leadre.store.records.tables import content_items

ROW = {"content_id": 3, "source_id": "c3", "title": "t"}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url, application_name="tests")
    yield engine
    engine.dispose()


def show(engine: Engine, setting: str) -> str:
    with transaction(engine) as connection:
        return str(connection.scalar(text(f"SHOW {setting}")))


def test_sessions_are_bounded_named_and_in_utc(database_url: str, engine: Engine) -> None:
    assert show(engine, "application_name") == "tests"
    assert (show(engine, "statement_timeout"), show(engine, "lock_timeout")) == ("10min", "10s")
    other = connect(database_url, statement_timeout_s=0.25, lock_timeout_s=0)
    assert (show(other, "statement_timeout"), show(other, "lock_timeout")) == ("250ms", "0")
    other.dispose()
    with transaction(engine) as connection:
        now = connection.scalar(text("SELECT now()"))
    assert isinstance(now, datetime)
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


def test_the_options_of_the_url_are_kept(database_url: str) -> None:
    engine = connect(f"{database_url}?options=-csearch_path%3Dfeast_registry")
    assert (show(engine, "search_path"), show(engine, "timezone")) == ("feast_registry", "UTC")
    engine.dispose()


def test_a_block_is_committed_whole_or_not_at_all(engine: Engine) -> None:
    def write_and_die() -> None:
        with transaction(engine) as connection:
            connection.execute(insert(content_items).values(ROW))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_die()
    with transaction(engine) as connection:
        assert connection.execute(select(content_items)).all() == []
        connection.execute(insert(content_items).values(ROW))
    with transaction(engine) as connection:
        assert len(connection.execute(select(content_items)).all()) == 1


def test_a_server_that_does_not_answer_is_unavailable_and_no_password_is_told() -> None:
    port = free_port()
    engine = connect(f"postgresql://leadre:sesame@127.0.0.1:{port}/ads")
    with pytest.raises(Unavailable, match=f"PostgreSQL at 127.0.0.1:{port}/ads: .*") as caught, transaction(engine):
        pass
    assert "sesame" not in str(caught.value)
    for ask in (migrate, migrations_current):
        with pytest.raises(Unavailable):
            ask(f"postgresql://leadre:sesame@127.0.0.1:{port}/ads")


def test_a_connection_lost_on_the_way_is_unavailable_and_the_next_one_works(engine: Engine) -> None:
    def lose() -> None:
        with transaction(engine) as connection:
            own = connection.scalar(text("SELECT pg_backend_pid()"))
            with transaction(engine) as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
            for _ in range(50):
                connection.execute(text("SELECT 1"))
                time.sleep(0.05)

    with pytest.raises(Unavailable, match="try again"):
        lose()
    assert show(engine, "timezone") == "UTC"


def test_a_connection_lost_while_idle_is_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FRESH_S", 0.0)  # it was used a moment ago
    with transaction(engine) as connection:
        idle = connection.scalar(text("SELECT pg_backend_pid()"))
    killer = connect(engine.url.render_as_string(hide_password=False))
    with transaction(killer) as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": idle})
    killer.dispose()
    with transaction(engine) as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != idle


def test_a_lock_that_is_not_given_in_time_is_unavailable(database_url: str, engine: Engine) -> None:
    hasty = connect(database_url, lock_timeout_s=0.1)

    def wait() -> None:
        with transaction(hasty) as connection:
            connection.execute(text("LOCK TABLE ads"))

    with transaction(engine) as connection:
        connection.execute(text("LOCK TABLE ads"))
        with pytest.raises(Unavailable, match="lock timeout"):
            wait()
    hasty.dispose()


def test_of_two_deadlocked_transactions_one_is_unavailable_and_the_other_succeeds(engine: Engine) -> None:
    both_hold = threading.Barrier(2, timeout=20)
    outcomes: list[str] = []

    def lock(first: str, second: str) -> None:
        try:
            with transaction(engine) as connection:
                connection.execute(text(f"LOCK TABLE {first}"))
                both_hold.wait()
                connection.execute(text(f"LOCK TABLE {second}"))
            outcomes.append("done")
        except Unavailable as error:
            outcomes.append("deadlock" if "deadlock" in str(error) else str(error))

    threads = [threading.Thread(target=lock, args=order) for order in (("ads", "users"), ("users", "ads"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["deadlock", "done"]


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(5)", "SELECT 1 / 0", "SELECT no_such_function()"])
def test_an_error_that_a_retry_does_not_mend_stays_what_it_is(database_url: str, statement: str) -> None:
    engine = connect(database_url, statement_timeout_s=0.1)

    def run() -> None:
        with transaction(engine) as connection:
            connection.execute(text(statement))

    with pytest.raises(DBAPIError):
        run()
    engine.dispose()


def test_a_database_without_the_tables_of_this_version_says_what_brings_them(empty_database_url: str) -> None:
    empty = connect(empty_database_url)
    with pytest.raises(ConfigError, match="`alembic upgrade head`") as error, transaction(empty) as connection:
        connection.execute(select(content_items))
    empty.dispose()
    assert "\n" not in str(error.value)


def test_a_broken_constraint_stays_an_integrity_error(engine: Engine) -> None:
    def write() -> None:
        with transaction(engine) as connection:
            connection.execute(insert(content_items).values(ROW))

    write()
    with pytest.raises(IntegrityError, match="pk_content_items"):
        write()


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://u:p@h/d", "not a url", ""])
def test_a_url_that_is_not_of_postgresql_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="database URL"):
        connect(url)
