"""Staged rows of an import: temporary tables that whole-table checks run on, before anything is written.

A staged row knows its file (`part`) and its number there, and its ids as the file spells them: what is wrong is told in
the owner's words, never by the ids derived from them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import psycopg2
import pyarrow as pa
from pyarrow import csv as arrow_csv
from sqlalchemy import Connection, Table, text

from leadre.errors import InvalidInput
from leadre.store.importers.tabular.rejected import BadRow, Kind, Rejected
from leadre.store.importers.tabular.values import shown
from leadre.store.records.bulk import ROW

_PLACE = {"part": "integer", "file_row": "bigint"}
_SHARED = "{0} and {1} share one id inside, where ids are 64-bit numbers derived from texts; rename one of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTable:
    """A table's staged rows: the temporary table's name, the table, and the files that `part` counts."""

    name: str
    table: str
    paths: Sequence[Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What may be wrong with staged rows, as SQL over `s`, the staged table.

    Args:
        kind: for programs.
        column: whose value is shown; a text column of the staged table.
        blamed: the column's name in the file.
        where: the rest of a SELECT from the staged table after its name: joins and conditions.
        problem: what is wrong; `{value}` is the value, `{detail}` that of `detail`.
        detail: an SQL expression.
    """

    kind: Kind
    column: str
    blamed: str
    where: str
    problem: str
    detail: str = "''"


def stage(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    *,
    more: Mapping[str, str],
    paths: Sequence[Path],
    batches: Iterable[pa.RecordBatch],
) -> StagedTable:
    """Copy rows into a temporary table that lives until the transaction ends; memory holds one batch.

    Args:
        connection: in a transaction.
        table: where the rows will go; gives the columns' types.
        columns: of the table, that are staged.
        more: further columns, from name to SQL type.
        paths: the files of the rows.
        batches: of `columns`, `more`, part and file_row, by name.

    Raises:
        InvalidInput: a value that PostgreSQL refuses.
    """
    staged = StagedTable(name=f"staged_{table.name}", table=table.name, paths=paths)
    quoted = ", ".join(f'"{column}"' for column in columns)
    extra = {**more, **_PLACE}
    connection.execute(
        text(f"CREATE TEMPORARY TABLE {staged.name} ON COMMIT DROP AS SELECT {quoted} FROM {table.name} WITH NO DATA")  # noqa: S608
    )
    added = [f'ADD COLUMN "{name}" {kind}' for name, kind in extra.items()]
    added.append(f"ADD COLUMN {ROW} bigint GENERATED ALWAYS AS IDENTITY")
    connection.execute(text(f"ALTER TABLE {staged.name} {', '.join(added)}"))
    names = [*columns, *extra]
    listed = ", ".join(f'"{name}"' for name in names)
    with closing(connection.connection.cursor()) as cursor:
        for batch in batches:
            lines = BytesIO()
            arrow_csv.write_csv(batch.select(names), lines, arrow_csv.WriteOptions(include_header=False))
            lines.seek(0)
            try:
                cursor.copy_expert(f"COPY {staged.name} ({listed}) FROM STDIN (FORMAT csv)", lines, 1 << 20)
            except psycopg2.DataError as error:
                raise InvalidInput(
                    f"PostgreSQL refuses a value for {table.name}: {error.diag.message_primary}", source=str(paths[0])
                ) from None
    connection.execute(text(f"ANALYZE {staged.name}"))
    return staged


def reject(connection: Connection, staged: StagedTable, fault: Fault, rejected: Rejected) -> int:
    """Find the staged rows that have a fault, and take them out.

    Returns:
        How many there were.

    Raises:
        InvalidInput: there is one, and rows of its kind may not be left out.
    """
    faulty = f"FROM {staged.name} s {fault.where}"
    query = f"SELECT s.part, s.file_row, s.{fault.column}, {fault.detail} {faulty} ORDER BY s.{ROW}"
    if not rejected.skips(fault.kind):
        query += " LIMIT 1"
    count = 0
    with TemporaryFile() as file:
        for part, row, value, detail in _copied(connection, query, file):
            count += 1
            problem = fault.problem.format(value=shown(value), detail=detail)
            rejected.add(
                BadRow(
                    table=staged.table,
                    path=staged.paths[int(part)],
                    row=int(row),
                    column=fault.blamed,
                    value=value,
                    problem=problem,
                    kind=fault.kind,
                )
            )
    if count:
        connection.execute(text(f"DELETE FROM {staged.name} WHERE {ROW} IN (SELECT s.{ROW} {faulty})"))  # noqa: S608
    return count


def refuse_shared_ids(connection: Connection, staged: StagedTable, key: str, key_text: str, *, blamed: str) -> None:
    """Check that no two texts among the staged rows have one derived id.

    Args:
        connection: that staged them.
        staged: the rows.
        key: column of the ids.
        key_text: column of the texts.
        blamed: the texts' column in the file.

    Raises:
        InvalidInput: two have; it names both.
    """
    query = f"""
        SELECT s.part, s.file_row, s.{key_text}, t.texts[1]
        FROM {staged.name} s
        JOIN (SELECT {key}, (array_agg({key_text} ORDER BY {ROW}))[1:1] AS texts FROM {staged.name}
              GROUP BY {key} HAVING min({key_text}) <> max({key_text})) t USING ({key})
        WHERE s.{key_text} <> t.texts[1] ORDER BY s.{ROW} LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    _refuse_first(connection, staged, query, blamed)


def refuse_foreign_ids(
    connection: Connection,
    staged: StagedTable,
    key: str,
    key_text: str,
    *,
    catalog: str,
    catalog_key: str,
    blamed: str,
    only: str = "true",
) -> None:
    """Check that no staged row's text (of the rows `only`) has the id of another text in the catalog.

    Raises:
        InvalidInput: one has; it names both.
    """
    query = f"""
        SELECT s.part, s.file_row, s.{key_text}, c.source_id
        FROM {staged.name} s JOIN {catalog} c ON c.{catalog_key} = s.{key} AND c.source_id <> s.{key_text}
        WHERE {only} ORDER BY s.{ROW} LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    _refuse_first(connection, staged, query, blamed)


def refuse_other_ids(
    connection: Connection, staged: StagedTable, key: str, key_text: str, *, catalog: str, blamed: str
) -> None:
    """Check that the catalog holds no staged row's text under another id: another importer derives ids otherwise.

    Raises:
        InvalidInput: it does.
    """
    query = f"""
        SELECT s.part, s.file_row, s.{key_text}
        FROM {staged.name} s JOIN {catalog} c ON c.source_id = s.{key_text} AND c.{key} <> s.{key}
        ORDER BY s.{ROW} LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    problem = "the database holds it from another importer, which gave it another id inside; use another database"
    _refuse_first(connection, staged, query, blamed, problem="{0}: " + problem)


def _refuse_first(
    connection: Connection, staged: StagedTable, query: str, blamed: str, *, problem: str = _SHARED
) -> None:
    if found := connection.execute(text(query)).one_or_none():
        part, row, *texts = found
        said = problem.format(*map(shown, texts))
        raise InvalidInput(said, source=str(staged.paths[part]), row=row, column=blamed)


def _copied(connection: Connection, query: str, file: IO[bytes]) -> Iterator[list[str]]:
    """Yield the rows of a query, by way of a file: they may be more than memory holds."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", file)
    file.seek(0)
    yield from csv.reader(line.decode() for line in file)
