"""Bulk load: many rows by COPY into a temporary table, then an INSERT … ON CONFLICT. For LEADRE §4.4.1's databases.

Everything runs in the caller's transaction and streams: rows may come from a generator larger than memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from typing import Any, Literal

import psycopg2
from sqlalchemy import JSON, Boolean, Column, Connection, DateTime, Float, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DataError, IntegrityError

from leadre.errors import InvalidInput

ROW = "staged_row"
"""Column of a staged table that numbers its rows from 1, in the order given."""

_CHUNK_BYTES = 1 << 20
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ARRAY_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Rows that wait in a temporary table: its name, its columns besides `ROW`, and how many rows there are."""

    name: str
    columns: tuple[str, ...]
    rows: int


@contextmanager
def staged(
    connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Iterator[Staged]:
    """Copy rows into a temporary table that lives until the block ends.

    Args:
        connection: in a transaction.
        table: where the rows will go; gives the columns' types.
        columns: names of the columns that a row holds, in its order.
        rows: each as long as `columns`; None is NULL, a list or tuple an array (a JSON column takes plain data), a
            datetime is aware.

    Raises:
        InvalidInput: a value that the column's type cannot hold, with its row and column.
    """
    name = f"staged_{table.name}"
    quoted = ", ".join(f'"{column}"' for column in columns)
    connection.execute(text(f"DROP TABLE IF EXISTS pg_temp.{name}"))  # of a load that failed in this transaction
    connection.execute(
        text(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {quoted} FROM {table.name} WITH NO DATA")  # noqa: S608
    )
    connection.execute(text(f"ALTER TABLE {name} ADD COLUMN {ROW} bigint GENERATED ALWAYS AS IDENTITY"))
    encoders = [_encoder(table.c[column]) for column in columns]
    copy = f"COPY {name} ({quoted}) FROM STDIN"
    count = 0
    with closing(connection.connection.cursor()) as cursor:
        for lines, count in _chunks(rows, columns, encoders):  # noqa: B007 - the last count is the total
            try:
                cursor.copy_expert(copy, StringIO(lines))
            except psycopg2.DataError as error:
                raise InvalidInput(f"PostgreSQL refuses a value for {table.name}: {error}") from None
    connection.execute(text(f"ANALYZE {name}"))
    yield Staged(name=name, columns=tuple(columns), rows=count)
    connection.execute(text(f"DROP TABLE {name}"))


def merge(
    connection: Connection,
    table: Table,
    source: Staged,
    *,
    key: Sequence[str],
    on_conflict: Literal["update", "nothing"],
) -> int:
    """Insert staged rows; of rows with one key the last counts. Rows go in by key, so that two writers never deadlock.

    Args:
        connection: the one that staged them.
        table: where they go.
        source: the staged rows.
        key: columns of the table's primary key or of a unique index.
        on_conflict: what becomes of a row whose key is there: `update` replaces it if it differs, `nothing` leaves it.

    Returns:
        The number of rows inserted or changed.

    Raises:
        InvalidInput: a row breaks a constraint of the table.
    """
    columns = ", ".join(f'"{column}"' for column in source.columns)
    keys = ", ".join(f'"{column}"' for column in key)
    others = [column for column in source.columns if column not in key]
    action = "NOTHING"
    if on_conflict == "update" and others:
        changes = [f'"{column}" = excluded."{column}"' for column in others]
        changes += ["created_at = now()"] if "created_at" in table.c and "created_at" not in others else []
        old = ", ".join(f't."{column}"' for column in others)
        new = ", ".join(f'excluded."{column}"' for column in others)
        action = f"UPDATE SET {', '.join(changes)} WHERE ({old}) IS DISTINCT FROM ({new})"
    statement = (
        f"INSERT INTO {table.name} AS t ({columns}) "  # noqa: S608 - names of our own tables and columns
        f"SELECT DISTINCT ON ({keys}) {columns} FROM {source.name} ORDER BY {keys}, {ROW} DESC "
        f"ON CONFLICT ({keys}) DO {action}"
    )
    try:
        return connection.execute(text(statement)).rowcount
    except (IntegrityError, DataError) as error:
        raise InvalidInput(f"PostgreSQL refuses a row for {table.name}: {error.orig}") from None


def copy_rows(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    key: Sequence[str],
    on_conflict: Literal["update", "nothing"] = "update",
) -> int:
    """Write rows in bulk: `staged`, then `merge`; see there.

    Returns:
        The number of rows inserted or changed: writing the same rows again returns 0.
    """
    with staged(connection, table, columns, rows) as source:
        return merge(connection, table, source, key=key, on_conflict=on_conflict)


def _chunks(
    rows: Iterable[Sequence[Any]], columns: Sequence[str], encoders: Sequence[Callable[[Any], str]]
) -> Iterator[tuple[str, int]]:
    """Yield (lines in COPY's text format, rows so far), about a megabyte at a time."""
    lines: list[str] = []
    size = number = 0
    for number, row in enumerate(rows, start=1):
        try:
            line = "\t".join(
                ["\\N" if value is None else encode(value) for encode, value in zip(encoders, row, strict=True)]
            )
        except (TypeError, ValueError, AttributeError):
            raise _bad_value(row, columns, encoders, number) from None
        lines.append(line)
        size += len(line)
        if size > _CHUNK_BYTES:
            yield "\n".join(lines) + "\n", number
            lines, size = [], 0
    if lines:
        yield "\n".join(lines) + "\n", number


def _bad_value(
    row: Sequence[Any], columns: Sequence[str], encoders: Sequence[Callable[[Any], str]], number: int
) -> InvalidInput:
    if len(row) != len(columns):
        return InvalidInput(f"the row has {len(row)} values, its columns are {len(columns)}", row=number)
    for column, encode, value in zip(columns, encoders, row, strict=True):
        try:
            if value is not None:
                encode(value)
        except (TypeError, ValueError, AttributeError) as error:
            return InvalidInput(str(error), row=number, column=column)
    raise AssertionError("an encoder failed only once")


def _encoder(column: Column[Any]) -> Callable[[Any], str]:
    """Return what writes a value of the column in COPY's text format."""
    if isinstance(column.type, ARRAY):
        element = _element(column.type.item_type)
        if isinstance(column.type.item_type, Integer | Float):
            return lambda values: _array(values, element)
        return lambda values: _array(values, lambda value: _quoted(element(value))).translate(_ESCAPES)
    element = _element(column.type)
    return (lambda value: element(value).translate(_ESCAPES)) if isinstance(column.type, Text | JSON) else element


def _element(column_type: object) -> Callable[[Any], str]:
    match column_type:
        case Integer():  # and its kin, SmallInteger and BigInteger
            return _integer
        case Boolean():
            return _boolean
        case Float():  # and its kin, Double and REAL
            return _double
        case DateTime():
            return _time
        case Text():
            return _text
        case JSON():  # and JSONB
            return json.dumps
    raise TypeError(f"bulk load knows no column of type {column_type}")


def _array(values: Sequence[Any], element: Callable[[Any], str]) -> str:
    if isinstance(values, str):
        raise TypeError("a text stands where a list belongs")  # its letters would become the elements
    return f"{{{','.join(['NULL' if value is None else element(value) for value in values])}}}"


def _quoted(element: str) -> str:
    return f'"{element.translate(_ARRAY_ESCAPES)}"'


def _integer(value: Any) -> str:
    number = int(value)
    if number != value or not -(2**63) <= number < 2**63:
        raise ValueError(f"{value!r} is not a 64-bit integer")
    return str(number)


def _boolean(value: Any) -> str:
    return "t" if value else "f"


def _double(value: Any) -> str:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return repr(number)


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no UTC offset; times are aware, e.g. {value.isoformat()}+00:00")
    return value.isoformat()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("the value is not a text")
    if "\0" in value:
        raise ValueError("the text holds a NUL character, which PostgreSQL cannot store; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(
                "the text holds half of a surrogate pair, which is no Unicode character; remove it"
            ) from None
    return value
