"""Months: the partitions of tables that grow with every refresh. For LEADRE §4.4.1's user feature database.

A month of `event_at` (UTC) is a table `partitions.<table>_YYYY_MM`, made before its first row, and exported and dropped
as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import parquet
from sqlalchemy import BigInteger, Connection, DateTime, Double, LargeBinary, MetaData, Table, Text, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from leadre.errors import ArtifactIncomplete
from leadre.store.records.tables import behavior_sequences, interest_summaries, retrieval_log

_TABLES = {table.name: table for table in (interest_summaries, behavior_sequences, retrieval_log)}
PARTITIONED = tuple(_TABLES)
"""The tables that have months."""
SCHEMA = "partitions"

_CONTENT = {
    "interest_summaries": "cardinality(categories || disliked_categories || spus || disliked_spus) > 0",
    "behavior_sequences": "cardinality(item_ids) > 0",
}
_SAME = {
    "interest_summaries": "t.user_id = m.user_id",
    "behavior_sequences": "(t.user_id, t.domain) = (m.user_id, m.domain)",
}
_AT_ONCE = 10_000
_ARROW = {Text: pa.string(), LargeBinary: pa.binary(), DateTime: pa.timestamp("us", "UTC"), Double: pa.float64()}


def ensure_months(connection: Connection, table: str, times: Iterable[datetime]) -> None:
    """Make the months that hold these times, where they are missing. Readers and writers of other months go on.

    Args:
        connection: in a transaction.
        table: one of `PARTITIONED`.
        times: aware.
    """
    months = sorted({month_of(time) for time in times})
    names = {name_of(table, month): month for month in months}
    query = text(
        "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE NOT EXISTS ("
        "SELECT FROM pg_class WHERE relname = name AND relnamespace = CAST(:schema AS regnamespace))"
    )
    wanted = {"names": list(names), "schema": SCHEMA}
    if not connection.scalars(query, wanted).all():
        return
    for name in connection.scalars(query, wanted).all():
        make = text("SELECT make_month(:table, :month)")  # as the owner of the table: migration 0012
        connection.execute(make, {"table": table, "month": names[name].date()})


def missing_months(tables: Sequence[str], source: str) -> str:
    """Return the SELECT of the months (first instants) that a statement is about to write to and that have no table.

    Args:
        tables: of `PARTITIONED`.
        source: a table or a part of the statement with a column `at`, the rows' `event_at`.
    """
    return f"""
        SELECT month FROM (SELECT DISTINCT date_trunc('month', at, 'UTC') FROM {source}) AS m (month)
        CROSS JOIN unnest(ARRAY['{"','".join(tables)}']) AS t (name) WHERE NOT EXISTS (
            SELECT FROM pg_class WHERE relname = t.name || to_char(month AT TIME ZONE 'UTC', '"_"YYYY"_"MM')
            AND relnamespace = '{SCHEMA}'::regnamespace)
    """  # noqa: S608 - our own names


def months_before(connection: Connection, table: str, before: datetime) -> list[str]:
    """Return the names of the months that end at or before a time, oldest first."""
    query = text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = CAST(:table AS regclass) ORDER BY 1"
    )
    last = name_of(table, month_of(before))
    return [name for name in connection.scalars(query, {"table": table}) if name < last]


def drop_months_before(connection: Connection, table: str, before: datetime) -> list[str]:
    """Drop the months that end at or before a time, as they are; return their names. See `drop_month`."""
    names = months_before(connection, table, before)
    for name in names:
        drop_month(connection, name)
    return names


def drop_month(connection: Connection, name: str) -> None:
    """Drop a month, with all that is in it. Waits until nobody reads its table.

    Args:
        connection: in a transaction.
        name: as `months_before` gives it.
    """
    connection.execute(text("SELECT drop_month(:name)"), {"name": name})


def still_valid(connection: Connection, table: str, name: str) -> int:
    """Return how many rows of a month say what holds now: with content, and no newer row in their place.

    0 for the retrieval log: a list that is a month old counts as absent.
    """
    if table not in _CONTENT:
        return 0
    query = f"""
        SELECT count(*) FROM {SCHEMA}.{name} AS m WHERE {_CONTENT[table]}
        AND NOT EXISTS (SELECT FROM {table} AS t WHERE {_SAME[table]} AND t.event_at > m.event_at)
    """  # noqa: S608 - our own names
    return int(connection.execute(text(query)).scalar_one())


def export_month(connection: Connection, table: str, name: str, *, folder: Path) -> Path:
    """Write a month to Parquet, `<folder>/<table>/<name>.parquet`, or `…-2.parquet` where that exists already.

    It can be read, and not written, until the transaction ends. The file has its name once all rows are in it.

    Raises:
        ArtifactIncomplete: the file does not hold as many rows as the month.
    """
    month = _TABLES[table].to_metadata(MetaData(), schema=SCHEMA, name=name)
    connection.execute(text(f"LOCK TABLE {SCHEMA}.{name} IN SHARE MODE"))
    rows = connection.execute(text(f"SELECT count(*) FROM {SCHEMA}.{name}")).scalar_one()  # noqa: S608
    (folder / table).mkdir(parents=True, exist_ok=True)
    unfinished = folder / table / f".{name}.parquet.part"
    with unfinished.open("wb") as file:
        _write_parquet(connection, month, file)
        file.flush()
        os.fsync(file.fileno())
    if (written := parquet.read_metadata(unfinished).num_rows) != rows:
        raise ArtifactIncomplete(f"{unfinished} holds {written} of the {rows} rows of {name}, which is not dropped")
    names = (f"{name}.parquet" if number == 1 else f"{name}-{number}.parquet" for number in count(1))
    path = next(path for path in (folder / table / file_name for file_name in names) if not path.exists())
    return unfinished.rename(path)


def _write_parquet(connection: Connection, month: Table, file: BinaryIO) -> None:
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in month.columns])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in connection.execute(select(month), execution_options={"yield_per": _AT_ONCE}).partitions():
            columns = zip(zip(*rows, strict=True), schema, strict=True)
            writer.write_batch(pa.record_batch([pa.array(values, field.type) for values, field in columns], schema))


def _arrow_type(column_type: object) -> pa.DataType:
    if isinstance(column_type, ARRAY):
        return pa.list_(_arrow_type(column_type.item_type))
    return pa.int64() if isinstance(column_type, BigInteger) else _ARROW[type(column_type)]


def month_of(time: datetime) -> datetime:
    """Return the first instant of a time's month, in UTC."""
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def name_of(table: str, month: datetime) -> str:
    """Return the name of a month's partition, without its schema."""
    return f"{table}_{month:%Y_%m}"
