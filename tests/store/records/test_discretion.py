"""No value of a row is in a database error, however it is logged: errors provoked on every write path, for real."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from leadre.derivation import pack
from leadre.derivation.user_side import derive
from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.domain.identity import stable_id
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.logs import JsonFormatter
from leadre.services import Services
from leadre.store.features import retrieval_log
from leadre.store.records.bulk import copy_rows
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.database import connect, transaction
from leadre.store.records.discretion import discreet
from leadre.store.records.events import append_behaviors, upsert_behaviors, upsert_impressions
from leadre.store.records.summaries import write_summaries
from leadre.store.records.tables import users
from leadre.store.release.records import record_index, record_release, record_sids

WORD = "Geheimnis"
NUMBER = stable_id(WORD)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEHAVIOR = Behavior(user_id=NUMBER, domain=Domain.AD, action=Action.CLICK, item_id=NUMBER, occurred_at=AT)
AD = Ad(
    ad_id=NUMBER, source_id=WORD, name=WORD, ad_type=WORD, first_category=WORD, second_category=WORD,
    attributes=(WORD,), advertiser_id=NUMBER, bid=1.0, created_at=AT,
)  # fmt: skip


def write_list(connection: Connection) -> None:
    lists = derive(
        counts=[1], ad_ids=[NUMBER], log_probabilities=[-1.0], codes=[[0]], first_categories=[0],
        second_categories=[0], category_names=[WORD], advertiser_ids=[NUMBER], embeddings=[[1.0]], ecpms=[1.0],
        generated_at_s=[AT.timestamp()], behavior_at_s=[AT.timestamp()], release=WORD, index_version=WORD,
    )  # fmt: skip
    retrieval_log.append(connection, np.array([NUMBER]), lists, pack(lists))


def write_sids(connection: Connection) -> None:
    record_sids(
        connection, WORD, ad_ids=np.array([NUMBER]), sids=[WORD], codes=np.array([[1]]),
        embeddings=np.array([[0.5]], np.float32), first_categories=[WORD], second_categories=[WORD],
        advertiser_ids=np.array([NUMBER]), event_at=AT,
    )  # fmt: skip


def summarize(connection: Connection) -> None:
    write_summaries(connection, now=AT + timedelta(hours=1))


WRITES: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "behaviors in bulk": ("behaviors.item_id", lambda c: upsert_behaviors(c, [BEHAVIOR], arrived_at=AT)),
    "behaviors of a request": ("behaviors.item_id", lambda c: append_behaviors(c, [BEHAVIOR], arrived_at=AT)),
    "impressions": (
        "impressions.ad_id",
        lambda c: upsert_impressions(
            c, [Impression(user_id=NUMBER, ad_id=NUMBER, occurred_at=AT, ecpm=1.0)], arrived_at=AT
        ),
    ),
    "ads": ("ads.name", lambda c: upsert_ads(c, [AD])),
    "users": ("users.residence", lambda c: upsert_users(c, [Profile(user_id=NUMBER, residence=WORD)], event_at=AT)),
    "content items": (
        "content_items.title",
        lambda c: upsert_content_items(
            c, [ContentItem(content_id=NUMBER, source_id=WORD, title=WORD, category=WORD)]
        ),
    ),
    "interest summaries": ("interest_summaries.categories", summarize),
    "S-IDs": ("semantic_ids.sid", write_sids),
    "index versions": ("index_versions.uri", lambda c: record_index(c, WORD, uri=WORD, recipe={}, quality={})),
    "releases": (
        "releases.uri",
        lambda c: record_release(c, WORD, index_version="known", uri=WORD, recipe={WORD: WORD}, metrics={}),
    ),
    "retrieval log": ("retrieval_log.release", write_list),
    "rows of any table": (
        "users.sex",
        lambda c: copy_rows(
            c, users, ("user_id", "source_id", "event_at", "sex"), [(NUMBER, WORD, AT, WORD)], key=("user_id",)
        ),
    ),
}  # fmt: skip


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database that holds what summaries and releases are made of."""
    found = connect(database_url)
    with transaction(found) as connection:
        record_index(connection, "known", uri="", recipe={}, quality={})
        upsert_ads(connection, [AD])
        append_behaviors(connection, [BEHAVIOR], arrived_at=AT)
    yield found
    found.dispose()


@pytest.mark.parametrize("way", ["a row that breaks a constraint", "a value that its column cannot hold"])
@pytest.mark.parametrize("path", WRITES)
def test_no_value_is_logged_of_a_refused_row(engine: Engine, services: Services, path: str, way: str) -> None:
    column, write = WRITES[path]
    table, _, name = column.partition(".")
    with transaction(engine) as connection:
        if path not in ("interest summaries", "releases"):
            connection.execute(text("TRUNCATE index_versions, ads, behaviors CASCADE"))
        if way.startswith("a row"):
            connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT refuse CHECK (false) NOT VALID"))
        else:
            connection.execute(text(f"ALTER TABLE {table} ALTER {name} DROP DEFAULT"))
            kind = "smallint[]" if name == "categories" else "smallint"
            connection.execute(text(f"ALTER TABLE {table} ALTER {name} TYPE {kind} USING NULL"))

    def run() -> None:
        with transaction(engine) as connection:
            write(connection)

    with pytest.raises((DBAPIError, InvalidInput)) as caught:
        run()
    original = said_by_server(caught.value)
    hidden = WORD in original or str(NUMBER) in original
    known = ("smallint out of range", "incorrect binary data", "of type text")
    assert hidden or any(said in original for said in known), original
    server = (services.folder / "postgres.log").read_text()
    for place in (logged(caught.value), repr(caught.value), server):
        assert WORD not in place
        assert str(NUMBER) not in place
    assert table in str(caught.value)


def logged(error: BaseException) -> str:
    """What a worker or a server writes about an error: as one JSON line, and as Python's own traceback."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("leadre.test")
    logger.addHandler(handler)
    logger.error("task_failed", exc_info=error)
    return stream.getvalue() + "".join(traceback.format_exception(error))


def said_by_server(error: BaseException | None) -> str:
    while error is not None and not isinstance(error, psycopg2.Error):
        error = error.__cause__ or error.__context__
    assert error is not None
    return error.pgerror or ""


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT CAST(:word AS bigint)", "InvalidTextRepresentation (SQLSTATE 22P02)"),
        ("SELECT CAST('2026-03-01 00:00+23:59' || :word AS timestamptz)", "SQLSTATE 22009"),
        ("SELECT no_such_function(:word)", "UndefinedFunction (SQLSTATE 42883)"),
        ("SELECT :word FROM no_such_table", 'relation "no_such_table" does not exist'),
        ("DO $$ BEGIN RAISE EXCEPTION 'it is %', 'Geheimnis'; END $$", "RaiseException (SQLSTATE P0001)"),
    ],
)
def test_an_error_names_what_is_wrong_without_the_value(engine: Engine, statement: str, said: str) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text(statement), {"word": WORD} if ":word" in statement else {})
    assert said in str(caught.value)
    assert WORD not in logged(caught.value).replace("'Geheimnis'; END", "")  # the statement's own text is ours


def test_what_is_checked_at_the_end_of_a_transaction_is_quiet_too(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE late (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)"))

    def run() -> None:
        with transaction(engine) as connection:
            connection.execute(text("INSERT INTO late VALUES (:word), (:word)"), {"word": WORD})

    with pytest.raises(DBAPIError, match="late_name_key") as caught:
        run()
    assert WORD in said_by_server(caught.value)
    assert WORD not in logged(caught.value)


def test_rows_that_a_server_side_cursor_computes_are_quiet_too(engine: Engine) -> None:
    query = (
        "SELECT CASE WHEN n < 5000 THEN n ELSE (CAST(:word AS text) || n)::bigint END FROM generate_series(1, 9000) n"
    )
    with engine.connect().execution_options(stream_results=True) as connection:
        result = connection.execute(text(query), {"word": WORD})
        with pytest.raises((DBAPIError, psycopg2.Error)) as caught:
            result.fetchall()
    assert WORD in said_by_server(caught.value)
    assert WORD not in logged(caught.value)


def test_feasts_own_driver_is_quiet_too(engine: Engine) -> None:
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        with pytest.raises(psycopg.DataError, match="22P02") as caught, discreet(psycopg.Error):
            connection.execute("SELECT %s::text::bigint", [WORD])
        connection.rollback()
    assert WORD not in logged(caught.value)


def test_parameters_are_hidden_by_every_engine(engine: Engine) -> None:
    assert engine.hide_parameters
