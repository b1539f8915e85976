"""Pushes to offline stores: why the retrieval log is written by SQL."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import psycopg2
import pytest
from feast import PushSource
from feast.data_source import PushMode
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

from tests.feast_contracts.conftest import MakeStore
from tests.feast_contracts.tiny import IDS, NOON, SCORE, frame, online, source, view

# ibis 12.0 (2026-11): calls what duckdb 2.0 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

ROW = {"user_id": [1], "score": [0.5], "ids": [[1, 2]], "at": [NOON]}


def test_a_push_to_the_postgresql_offline_store_is_not_implemented(
    postgres_store: MakeStore, postgres: psycopg2.extensions.cursor
) -> None:
    postgres.execute("CREATE TABLE rows (user_id bigint, score float8, at timestamptz, created timestamptz)")
    of = PostgreSQLSource(name="rows", table="rows", timestamp_field="at", created_timestamp_column="created")
    tiny = postgres_store(view(PushSource(name="push", batch_source=of)))
    row = frame({name: ROW[name] for name in ("user_id", "score", "at")})
    tiny.push("push", row)
    assert online(tiny, "facts:score", 1) == [0.5]
    with pytest.raises(NotImplementedError):
        tiny.push("push", row, to=PushMode.OFFLINE)


def test_a_push_needs_every_column_of_the_source(store: MakeStore, tmp_path: Path) -> None:
    tiny = store(view(PushSource(name="push", batch_source=source(tmp_path, ROW)), SCORE, IDS))
    for missing in ("created", "score"):
        with pytest.raises(KeyError, match=missing):
            tiny.push("push", frame(ROW).drop(columns=missing))


@pytest.mark.parametrize("kind", ["dask", "duckdb"])
def test_a_push_to_files_takes_lists_and_writes_the_whole_file_again(
    kind: str, store: MakeStore, tmp_path: Path
) -> None:
    if kind == "duckdb":
        pytest.importorskip("ibis", reason="pip install 'leadre[duckdb]'")
    of = PushSource(name="push", batch_source=source(tmp_path, ROW))
    tiny = store(view(of, SCORE, IDS), offline_store={"type": kind})
    for rows in (2, 3):  # the second failed with earlier releases of ibis
        before = (tmp_path / "rows.parquet").stat().st_ino, (tmp_path / "rows.parquet").read_bytes()
        tiny.push("push", frame(ROW), to=PushMode.OFFLINE)
        assert len(pd.read_parquet(tmp_path / "rows.parquet")) == rows
        assert not (tmp_path / "rows.parquet").read_bytes().startswith(before[1])
