"""Migrations, on a real PostgreSQL, as a deployer runs them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from leadre.store.records import tables
from leadre.store.records.database import connect, migrate, migrations_current, transaction

ROOT = Path(__file__).parents[3]

EVERYTHING = """
SELECT 'column', c.relname || '.' || a.attname,
       format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull::text || ' ' || a.attidentity::text || ' '
       || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(col_description(c.oid, a.attnum), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'comment', relname, coalesce(obj_description(oid, 'pg_class'), '')
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
ORDER BY 1, 2, 3
"""


def everything(database_url: str) -> set[tuple[str, str, str]]:
    engine = connect(database_url)
    try:
        with transaction(engine) as connection:
            rows = connection.execute(text(EVERYTHING)).all()
        return {tuple(row) for row in rows if "alembic_version" not in f"{row[1]} {row[2]}"}
    finally:
        engine.dispose()


def alembic(*arguments: str, environment: dict[str, str], cwd: Path = ROOT) -> str:
    command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), *arguments]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_migrations_give_exactly_the_tables_of_the_metadata(database_url: str, empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    tables.metadata.create_all(engine)
    engine.dispose()
    assert everything(database_url) == everything(empty_database_url)


def test_up_down_and_up_again_leave_nothing_to_do(environment: dict[str, str], tmp_path: Path) -> None:
    url = environment["LEADRE_DATABASE_URL"]
    first = everything(url)
    alembic("downgrade", "base", environment=environment, cwd=tmp_path)
    assert everything(url) == set()
    assert not migrations_current(url)
    alembic("upgrade", "head", environment=environment, cwd=tmp_path)
    assert everything(url) == first
    assert migrations_current(url)
    alembic("check", environment=environment, cwd=tmp_path)


def test_what_feast_owns_is_left_alone(environment: dict[str, str]) -> None:
    engine = connect(environment["LEADRE_DATABASE_URL"])
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE feast_registry.projects (project_id text)"))
        connection.execute(text("CREATE TABLE feast_entity_df_0a1b (user_id bigint)"))
    engine.dispose()
    alembic("check", environment=environment)


def test_a_table_that_nobody_declared_fails_the_check(environment: dict[str, str]) -> None:
    engine = connect(environment["LEADRE_DATABASE_URL"])
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE stray (user_id bigint)"))
    engine.dispose()
    with pytest.raises(AssertionError, match="stray"):
        alembic("check", environment=environment)


def test_three_deployers_at_once_migrate_once(empty_database_url: str, environment: dict[str, str]) -> None:
    environment["LEADRE_DATABASE_URL"] = empty_database_url
    with ThreadPoolExecutor(3) as deployers:
        list(deployers.map(lambda _: alembic("upgrade", "head", environment=environment), range(3)))
    assert migrations_current(empty_database_url)


def test_migrating_a_current_database_changes_nothing(database_url: str) -> None:
    before = everything(database_url)
    migrate(database_url)
    assert everything(database_url) == before


def test_the_sql_of_the_migrations_can_be_printed_without_a_database(environment: dict[str, str]) -> None:
    del environment["LEADRE_DATABASE_URL"]
    printed = alembic("upgrade", "head", "--sql", environment=environment)
    assert "CREATE TABLE semantic_ids" in printed
    assert "CREATE SCHEMA IF NOT EXISTS feast_registry" in printed
