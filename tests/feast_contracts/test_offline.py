"""Point-in-time joins: which rows come back, in which order, with which times.

PostgreSQL's join turns quadratic once the tables are analysed, as the planner takes nested loops: a matter of speed, so
it is written in docs/operations.md and not timed here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import psycopg2
import pytest
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.infra.utils.postgres.connection_utils import _get_conn_kwargs
from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import HOUR, IDS, NOON, SCORE, joined, source, view

# ibis 12.0 (2026-11): calls what duckdb 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

ROWS = {"user_id": [1], "score": [0.5], "at": [NOON]}
ASKED = {
    "user_id": [1, 1, 1, 1],
    "event_timestamp": [NOON + HOUR, NOON + HOUR, NOON - HOUR, NOON + 9 * HOUR],
    "row": [0, 1, 2, 3],
}
"""Twice one instant, before the feature, and past a ttl of eight hours."""
ANSWERS = {0: 0.5, 1: 0.5, 2: None, 3: None}


@pytest.fixture
def duckdb_store(store: MakeStore) -> MakeStore:
    pytest.importorskip("ibis", reason="pip install 'leadre[duckdb]'")
    pytest.importorskip("duckdb")
    return lambda *objects: store(*objects, offline_store={"type": "duckdb"})


def postgres_source(cursor: psycopg2.extensions.cursor) -> PostgreSQLSource:
    cursor.execute(
        "CREATE TABLE rows (user_id bigint, score float8, ids bigint[], at timestamptz, created timestamptz)"
    )
    cursor.execute("INSERT INTO rows VALUES (1, 0.5, '{1,2}', %(at)s, %(at)s)", {"at": NOON})
    return PostgreSQLSource(name="rows", table="rows", timestamp_field="at", created_timestamp_column="created")


def answers(found: pd.DataFrame) -> dict[int, float | None]:
    """The scores by row."""
    pairs = zip(found["row"], found["score"], strict=True)
    return {row: None if np.isnan(score) else score for row, score in pairs}


def test_dask_drops_rows_that_repeat_an_instant_precede_the_feature_or_are_past_its_ttl(
    store: MakeStore, tmp_path: Path
) -> None:
    tiny = store(view(source(tmp_path, ROWS), ttl=8 * HOUR))
    assert answers(joined(tiny, ASKED, "facts:score")) == {1: 0.5}


def test_duckdb_keeps_every_row(duckdb_store: MakeStore, tmp_path: Path) -> None:
    tiny = duckdb_store(view(source(tmp_path, ROWS), ttl=8 * HOUR))
    assert answers(joined(tiny, ASKED, "facts:score")) == ANSWERS


def test_postgresql_keeps_every_row(postgres_store: MakeStore, postgres: psycopg2.extensions.cursor) -> None:
    tiny = postgres_store(view(postgres_source(postgres), ttl=8 * HOUR))
    assert answers(joined(tiny, ASKED, "facts:score")) == ANSWERS


def test_duckdb_returns_rows_in_another_order(duckdb_store: MakeStore, tmp_path: Path) -> None:
    rows = 300_000  # several row groups, so several threads
    of = source(tmp_path, {"user_id": range(rows), "score": np.arange(rows) / 2, "at": [NOON] * rows})
    tiny = duckdb_store(view(of))
    asked = {"user_id": range(rows), "event_timestamp": [NOON + HOUR] * rows, "row": range(rows)}
    found = (joined(tiny, asked, "facts:score") for _ in range(3))
    shuffled = next(answer for answer in found if not answer["row"].is_monotonic_increasing)
    assert (shuffled["score"] == shuffled["row"] / 2).all()  # each with its own answer


def test_postgresql_returns_naive_times(postgres_store: MakeStore, postgres: psycopg2.extensions.cursor) -> None:
    found = joined(postgres_store(view(postgres_source(postgres))), ASKED, "facts:score")
    assert set(found["event_timestamp"]) == {at.replace(tzinfo=None) for at in ASKED["event_timestamp"]}


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_list_that_is_there_is_an_array_and_one_that_is_not_is_none(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(f"{kind}_store")
    if kind == "postgres":
        tiny = make(view(postgres_source(request.getfixturevalue("postgres")), SCORE, IDS))
    else:
        tiny = make(view(source(tmp_path, {**ROWS, "ids": [[1, 2]]}), SCORE, IDS))
    there, absent = joined(tiny, ASKED, "facts:ids").sort_values("row")["ids"].iloc[[0, 2]]
    assert isinstance(there, np.ndarray)
    assert there.tolist() == [1, 2]
    assert absent is None


@pytest.mark.parametrize("kind", ["dask", "duckdb", "postgres"])
def test_naive_times_are_taken_as_utc(
    kind: str, store: MakeStore, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    naive = {"user_id": [1], "event_timestamp": [NOON.replace(tzinfo=None)], "row": [0]}
    if kind == "postgres":
        tiny = request.getfixturevalue("postgres_store")(view(postgres_source(request.getfixturevalue("postgres"))))
    elif kind == "duckdb":
        tiny = request.getfixturevalue("duckdb_store")(view(source(tmp_path, ROWS)))
    else:
        tiny = store(view(source(tmp_path, ROWS)))
    assert answers(joined(tiny, naive, "facts:score")) == {0: 0.5}
    earlier = {**naive, "event_timestamp": [(NOON - HOUR).replace(tzinfo=None)]}
    assert answers(joined(tiny, earlier, "facts:score")).get(0) is None


def test_duckdb_takes_a_relative_path_from_where_the_process_runs(
    store: MakeStore, duckdb_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(tmp_path, ROWS)
    relative = FileSource(path="rows.parquet", timestamp_field="at", created_timestamp_column="created")
    monkeypatch.chdir("/")
    assert not joined(store(view(relative)), ASKED, "facts:score").empty  # Dask: from the repository
    with pytest.raises(Exception, match="No files found"):
        joined(duckdb_store(view(relative)), ASKED, "facts:score")


def test_duckdb_reads_a_folder_only_where_the_format_is_said(duckdb_store: MakeStore, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    source(tmp_path / "rows", ROWS)
    times = {"timestamp_field": "at", "created_timestamp_column": "created"}
    said = FileSource(path=str(tmp_path / "rows"), file_format=ParquetFormat(), **times)
    assert answers(joined(duckdb_store(view(said)), ASKED, "facts:score"))[0] == 0.5
    unsaid = FileSource(path=str(tmp_path / "rows"), **times)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'mutate'"):
        joined(duckdb_store(view(unsaid)), ASKED, "facts:score")


def test_postgresql_wants_tls_unless_told_otherwise() -> None:
    assert PostgreSQLConfig(host="h", database="d", user="u", password="p").sslmode == "require"


def test_the_schema_of_postgresql_is_text_behind_search_path() -> None:
    # What feature_store.yaml relies on to switch nested loops off.
    config = PostgreSQLConfig(host="h", database="d", user="u", password="p", db_schema="a -c enable_nestloop=off")
    assert _get_conn_kwargs(config)["options"] == "-c search_path=a -c enable_nestloop=off,public"
