"""Sources of feature views as Parquet, a file a month: what feature_store.duckdb.yaml joins. LEADRE §5.3.

A file is written under another name and then renamed, so readers see whole months. Memory is bounded: rows stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, FeatureView
from feast.data_source import DataSource
from feast.types import Bytes, FeastType, from_feast_to_pyarrow_type
from sqlalchemy import Connection, Engine, text

from leadre.names import not_there
from leadre.store.records.database import connect, transaction

ROWS_AT_ONCE = 50_000
"""Rows in memory (ours); also the rows of a row group."""
_TIME = pa.timestamp("us", tz="UTC")

Progress = Callable[[str, int, int | None], None]


def export_sources(
    feature_repo: Path,
    database_url: str,
    folder: Path,
    *,
    names: Sequence[str],
    since: datetime | None,
    until: datetime,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the sources of the views of these names, or of all; see `export_views`.

    Raises:
        ConfigError: there is no such view.
        Unavailable: PostgreSQL does not answer.
    """
    store = FeatureStore(repo_path=str(feature_repo))
    views = {view.name: view for view in store.list_feature_views()}
    if unknown := sorted(set(names) - set(views)):
        raise not_there("feature view", unknown[0], views)
    database = connect(database_url, application_name="leadre dataset", statement_timeout_s=0)
    try:
        chosen = [views[name] for name in names or sorted(views)]
        return export_views(database, chosen, folder, since=since, until=until, progress=progress)
    finally:
        database.dispose()


def export_views(
    database: Engine,
    views: Sequence[FeatureView],
    folder: Path,
    *,
    since: datetime | None,
    until: datetime,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the sources of views as they are now, over what an earlier export wrote of the same months.

    Args:
        database: the system of record.
        views: of the feature repository over PostgreSQL.
        folder: gets a folder a source, named after it, with a file a month.
        since: rows with an older `event_at` are left out; None: none are.
        until: rows with this `event_at` or a newer one are left out.
        progress: called with the source's name, rows written, and None.

    Returns:
        Rows written, by source.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    written = {}
    for view in views:
        source = _source(view)
        schema, into = _schema(view), folder / source.name
        into.mkdir(parents=True, exist_ok=True)
        table = f"{source.get_table_query_string()} AS source"
        time = source.timestamp_field
        with transaction(database) as connection:
            months = _months(connection, table, time, since=since, until=until)
            count = 0
            for start, end in months:
                query = text(
                    f"SELECT {', '.join(schema.names)} FROM {table} "  # noqa: S608 - our own definitions
                    f"WHERE {time} >= :start AND {time} < :end"
                )
                rows = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query, {"start": start, "end": end})
                for done in _write(into / f"{start:%Y-%m}.parquet", schema, rows.partitions()):
                    count += done
                    if progress is not None:
                        progress(source.name, count, None)
        written[source.name] = count
    declare_views(views, folder)
    return written


def declare_views(views: Sequence[FeatureView], folder: Path) -> None:
    """Make sources without rows of views that were never exported: Feast wants every source of a repository there."""
    for view in views:
        into = folder / _source(view).name
        into.mkdir(parents=True, exist_ok=True)
        if not any(into.glob("*.parquet")):
            pq.write_table(_schema(view).empty_table(), into / "none.parquet")


def _write(path: Path, schema: pa.Schema, parts: Iterator[Sequence[Any]]) -> Iterator[int]:
    """Write a month; yield the rows of each part."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with pq.ParquetWriter(unfinished, schema) as writer:
        for part in parts:
            columns = zip(*part, strict=True)
            arrays = [pa.array(_plain(column), kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield len(part)
    unfinished.rename(path)


def _plain(column: Sequence[Any]) -> Sequence[Any]:
    first = next((value for value in column if value is not None), None)
    return [None if value is None else bytes(value) for value in column] if isinstance(first, memoryview) else column


def _schema(view: FeatureView) -> pa.Schema:
    source = _source(view)
    columns = {field.name: _arrow_type(field.dtype) for field in (*view.entity_columns, *view.features)}
    columns |= {source.timestamp_field: _TIME, source.created_timestamp_column: _TIME}
    return pa.schema(list(columns.items()))


def _source(view: FeatureView) -> DataSource:
    assert view.batch_source is not None  # noqa: S101 - every view of feature_repo has one
    return view.batch_source


def _arrow_type(dtype: FeastType) -> pa.DataType:
    return pa.binary() if dtype == Bytes else from_feast_to_pyarrow_type(dtype)  # Feast 0.67 has none for it


def _months(
    connection: Connection, table: str, time: str, *, since: datetime | None, until: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the months that hold rows, each from its first instant to its end; all within `since` and `until`."""
    query = text(
        f"SELECT DISTINCT date_trunc('month', {time}, 'UTC') FROM {table} "  # noqa: S608 - our own definitions
        f"WHERE {time} < :until AND (CAST(:since AS timestamptz) IS NULL OR {time} >= :since) ORDER BY 1"
    )
    found = []
    for start in connection.scalars(query, {"since": since, "until": until}):
        first = start.astimezone(UTC)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        found.append((first, min(following, until)))
    return found
