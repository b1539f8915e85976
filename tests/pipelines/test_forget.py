"""Forgetting a person: all of it goes, of others nothing, and what is left somewhere is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

from leadre.cli import cli
from leadre.pipelines.forget import MOST_ROUNDS, forget
from leadre.retrieval.refresh_queue import TAG, RefreshQueue
from leadre.settings import Settings
from leadre.store.features.layout import user_keys
from leadre.store.person.online import Online, find_online
from leadre.store.person.rows import find_rows
from leadre.store.person.whom import Person
from leadre.store.records.database import connect, transaction
from leadre.store.records.partitions import PARTITIONED, ensure_months
from leadre.store.release.records import record_index, record_release

NOW = datetime.now(UTC)
ANNA, OTTO, SEVEN = Person.named("anna@example.org"), Person.named("otto@example.org"), Person.named(7)
STREAM = "{leadre:behaviors}:stream"
VALUES = {"int2": "1", "int4": "1", "int8": "1", "float4": "1", "float8": "1", "numeric": "1", "bool": "false"}
TIMES = {"timestamptz": f"'{NOW.isoformat()}'", "bytea": "'\\x00'", "jsonb": "'{}'", "uuid": "gen_random_uuid()"}
WORDS = {"domain": "'ad'", "release": "'first'", "index_version": "'index-1'"}


def tables_of_users(connection: Connection) -> dict[str, list[tuple[str, str]]]:
    """Every table with a column of users, and all columns that must be given."""
    query = text("""
        SELECT table_name, column_name, udt_name, is_nullable = 'NO' AND column_default IS NULL
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN (
            SELECT table_name FROM information_schema.columns WHERE column_name IN ('user_id', 'user_ids'))
    """)
    found: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind, needed in connection.execute(query):
        if needed or column in ("user_id", "user_ids"):
            found.setdefault(table, []).append((column, kind))
    return found


def fill(database: Engine, *people: Person) -> list[str]:
    """Put a row of each person into every table that can hold one; return the tables."""
    with transaction(database) as connection:
        record_index(connection, "index-1", uri="", recipe={}, quality={})
        record_release(connection, "first", index_version="index-1", uri="", recipe={}, metrics={})
        for table in PARTITIONED:
            ensure_months(connection, table, [NOW])
        tables = tables_of_users(connection)
        for number, person in enumerate(people):
            for table, columns in tables.items():
                given = {
                    column: {
                        "user_id": str(person.user_id),
                        "user_ids": f"'{{{person.user_id}, 99}}'",
                        "source_id": f"'{person.source_id or person.user_id}'",
                        "behavior_id": str(number),
                        "impression_id": str(number),
                        "users_hash": str(number),
                    }.get(column)
                    or WORDS.get(column)
                    or VALUES.get(kind)
                    or TIMES.get(kind)
                    or ("'{}'" if kind.startswith("_") else "'x'")
                    for column, kind in columns
                }
                connection.execute(
                    text(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({', '.join(given.values())})")
                )
    return list(tables)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    made = connect(database_url)
    yield made
    made.dispose()


@pytest.fixture
def online(redis_url: str) -> Iterator[Online]:
    with redis.Redis.from_url(redis_url) as client:
        yield Online(features=client, others=client, project="leadre", tags=(TAG, "{leadre:behaviors}"))


def fill_redis(online: Online, redis_url: str, *people: Person) -> None:
    """Give each person features, a lease and a mark, a place among the dead, and an entry of both streams."""
    client, queue = online.others, RefreshQueue.connect(redis_url)
    for person in people:
        (key,) = user_keys(np.array([person.user_id]), "leadre")
        client.hset(key, b"\x01\x02\x03\x04", b"\x08\x07")
        entry = json.dumps({"u": person.user_id, "r": "r-1", "b": []}, separators=(",", ":"))
        client.xadd(STREAM, {"e": entry})
        client.xadd("{leadre:behaviors}:dead", {"e": entry, "why": "b", "id": "1-1"})
    client.xgroup_create(STREAM, "persisters", id="0")
    client.xreadgroup("persisters", "one", {STREAM: ">"}, count=100)
    queue.mark([person.user_id for person in people])
    queue.claim(100, lease_s=60)
    queue.mark([person.user_id for person in people])
    client.zadd(f"{TAG}:dead", {str(person.user_id): 1 for person in people})


@pytest.mark.parametrize("person", [ANNA, SEVEN], ids=["text", "number"])
def test_everything_of_a_person_goes_and_nothing_of_others(
    database: Engine, online: Online, redis_url: str, person: Person
) -> None:
    tables = fill(database, person, OTTO)
    fill_redis(online, redis_url, person, OTTO)
    assert {"users", "user_state", "behaviors", "impressions", "retrieval_log", "backfill_shards"} <= set(tables)
    with transaction(database) as connection:
        before = find_rows(connection, OTTO), find_online(online, OTTO)
        assert {table for table, rows in find_rows(connection, person).items() if rows} >= set(tables)
    told: dict[str, tuple[int, int | None]] = {}
    done = forget(
        person,
        database=database,
        online=online,
        settle_s=0,
        progress=lambda what, done, total: told.update({what: (done, total)}),
    )
    assert set(told) == {"removing: tables", "searching: tables", "searching: keys"}
    assert all(done == total for done, total in told.values())
    assert (done.left_in_all, done.rounds, done.materialization_under_way) == (0, 1, False)
    assert set(done.removed) >= {*tables, "redis features", f"redis {STREAM}", f"redis {TAG}:dead"}
    assert online.others.xpending(STREAM, "persisters")["pending"] == 1
    with transaction(database) as connection:
        assert sum(find_rows(connection, person).values()) == 0
        assert (find_rows(connection, OTTO), find_online(online, OTTO)) == before
        assert connection.scalar(text("SELECT count(*) FROM ad_earnings WHERE impressions = 1")) == 1


def test_a_claim_of_a_forgotten_person_is_nobody_s_and_the_queue_goes_on(
    database: Engine, online: Online, redis_url: str
) -> None:
    queue = RefreshQueue.connect(redis_url)
    queue.mark([ANNA.user_id, OTTO.user_id])
    claims = queue.claim(2, lease_s=60)
    forget(ANNA, database=database, online=online, settle_s=0)
    assert queue.complete(claims) == 1
    assert (queue.depth(), queue.claimed()) == (0, 0)


def test_what_was_on_its_way_is_removed_in_another_round(database: Engine, online: Online, redis_url: str) -> None:
    def late(_: float) -> None:
        if not arrived:
            arrived.append(1)
            fill(database, ANNA)

    arrived: list[int] = []
    done = forget(ANNA, database=database, online=online, sleep=late)
    assert (done.rounds, done.left_in_all) == (2, 0)


def test_who_is_written_about_without_end_is_said_to_be_still_there(database: Engine, online: Online) -> None:
    done = forget(
        ANNA, database=database, online=online, sleep=lambda _: online.others.set("cache:anna", ANNA.source_id)
    )
    assert (done.rounds, done.left_in_all) == (MOST_ROUNDS, 1)
    assert done.left == {"redis cache:anna": 1}


@pytest.mark.parametrize(
    "put",
    [
        lambda client, it: client.set("some key", json.dumps({"user": it})),
        lambda client, it: client.lpush("some key", f"a,{it},b"),
        lambda client, it: client.sadd("some key", it),
        lambda client, it: client.hset("some key", "field", f"user={it};"),
        lambda client, it: client.xadd("some key", {"field": it}),
        lambda client, it: client.set(f"cache/{it}/list", "x"),
        lambda client, it: client.set("some key", b"\x01" + int(it).to_bytes(8, "little")),
    ],
)
def test_a_person_in_a_key_that_nobody_thought_of_is_found(online: Online, put: Callable[[Any, str], None]) -> None:
    put(online.others, str(ANNA.user_id))
    assert sum(find_online(online, ANNA).values()) == 1
    assert sum(find_online(online, OTTO).values()) == 0


def test_a_person_in_a_table_that_nobody_thought_of_is_found(database: Engine) -> None:
    with transaction(database) as connection:
        connection.execute(text("CREATE SCHEMA notes CREATE TABLE kept (who text, seen bigint[], more jsonb)"))
        rows = [(ANNA.source_id, [], {}), ("x", [1, ANNA.user_id], {}), ("x", [], {"a": [{"b": ANNA.source_id}]})]
        for who, seen, more in rows:
            connection.execute(
                text("INSERT INTO notes.kept VALUES (:who, :seen, CAST(:more AS jsonb))"),
                {"who": who, "seen": seen, "more": json.dumps(more)},
            )
        assert find_rows(connection, ANNA)["notes.kept"] == 3
        assert find_rows(connection, OTTO)["notes.kept"] == 0


def test_an_ad_of_the_same_name_is_no_person(database: Engine) -> None:
    with transaction(database) as connection:
        for person in (ANNA, SEVEN):
            connection.execute(
                text("INSERT INTO ads (ad_id, source_id, name, event_at) VALUES (:id, :name, 'x', now())"),
                {"id": person.user_id, "name": person.source_id or "7"},
            )
            assert sum(find_rows(connection, person).values()) == 0


def test_the_command_prints_what_it_removed_and_finds_nothing_afterwards(
    applied: Settings, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (environment | applied.feast_environment()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEADRE_DATABASE_URL", applied.database_url)
    monkeypatch.setattr("leadre.pipelines.forget.SETTLE_S", 0.0)
    database = connect(applied.database_url)
    fill(database, ANNA)
    database.dispose()
    asked = CliRunner().invoke(cli, ["user", "forget", "anna@example.org"], input="n\n")
    assert asked.exit_code == 1
    assert "anna@example.org" in asked.stderr
    done = CliRunner().invoke(cli, ["user", "forget", "anna@example.org", "--yes", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    facts = json.loads(done.stdout)
    assert (facts["left_in_all"], facts["removed"]["retrieval_log"], facts["removed"]["users"]) == (0, 1, 1)
    assert facts["looked_at"] > 10
    again = CliRunner().invoke(cli, ["user", "forget", "anna@example.org", "--yes"])
    assert again.exit_code == 0
    assert "tables and places: 0" in again.stdout
