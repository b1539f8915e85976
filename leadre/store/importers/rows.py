"""Rows of a user's own CSV or Parquet file: read in batches, checked value by value.

Whatever is wrong is an `InvalidInput` that names file, row and column. docs/data_format.md is the user's side of this.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from leadre.errors import InvalidInput

_BATCH_ROWS = 10_000
_BLOCK_BYTES = 4 << 20


class _Required:
    pass


REQUIRED = _Required()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRule:
    """A column of a file: how a value is read, and what stands for an empty one (`REQUIRED`: it may not be empty).

    `parse` gets a text (CSV) or Parquet's own type, and raises ValueError saying what is wrong.
    """

    name: str
    parse: Callable[[Any], Any]
    default: Any = REQUIRED


def find_file(folder: Path, table: str) -> Path | None:
    """Return `folder`/`table`.csv or .parquet, or None without either.

    Raises:
        InvalidInput: both are there.
    """
    found = [path for suffix in (".csv", ".parquet") if (path := folder / f"{table}{suffix}").is_file()]
    if len(found) > 1:
        raise InvalidInput(f"there are both {found[0].name} and {found[1].name}; remove one", source=str(folder))
    return found[0] if found else None


def read_rows(path: Path, rules: Sequence[ColumnRule]) -> Iterator[dict[str, Any]]:
    """Yield the file's rows, each a value for every rule by its name; memory holds one batch.

    Raises:
        InvalidInput: the file cannot be read, has no rows, an unknown, missing or repeated column, or a bad value.
    """
    source, row = str(path), 0
    try:
        batches, names = _open_csv(path, rules) if path.suffix == ".csv" else _open_parquet(path)
        _check_columns(names, rules, source)
        for batch in batches:
            columns = [_values(batch.column(rule.name)) if rule.name in names else None for rule in rules]
            for position in range(batch.num_rows):
                row += 1
                yield {
                    rule.name: _value(rule, None if column is None else column[position], source, row)
                    for rule, column in zip(rules, columns, strict=True)
                }
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        raise InvalidInput(f"cannot be read after row {row}: {said}", source=source) from None
    if row == 0:
        raise InvalidInput("holds no rows; fill it, or remove it if it is optional", source=source)


def _open_csv(path: Path, rules: Sequence[ColumnRule]) -> tuple[Iterator[pa.RecordBatch], list[str]]:
    def refuse(bad: csv.InvalidRow) -> str:
        where = f"row {bad.number - 1}" if bad.number is not None else f"{bad.text[:40]!r}"
        problems.append(
            f"{where} has {bad.actual_columns} columns, the header {bad.expected_columns}; quote values with commas"
        )
        return "error"

    problems: list[str] = []
    if path.stat().st_size == 0:
        raise InvalidInput("is empty; it needs a header and rows", source=str(path))
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                column_types={rule.name: pa.string() for rule in rules}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        if problems:
            raise InvalidInput(problems[0], source=str(path)) from None
        raise

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except pa.ArrowInvalid:
            if problems:
                raise InvalidInput(problems[0], source=str(path)) from None
            raise

    return batches(), reader.schema.names


def _open_parquet(path: Path) -> tuple[Iterator[pa.RecordBatch], list[str]]:
    file = parquet.ParquetFile(path)
    return file.iter_batches(batch_size=_BATCH_ROWS), file.schema_arrow.names


def _check_columns(names: Sequence[str], rules: Sequence[ColumnRule], source: str) -> None:
    known = [rule.name for rule in rules]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidInput(f"unknown column; {hint}known are {', '.join(known)}", source=source, column=name)
        if names.count(name) > 1:
            raise InvalidInput("the column appears twice", source=source, column=name)
    for rule in rules:
        if rule.default is REQUIRED and rule.name not in names:
            raise InvalidInput(
                f"the column is missing; the file has {', '.join(names)}", source=source, column=rule.name
            )


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)  # Python's datetime holds no nanoseconds
    return list(column.to_pylist())


def _value(rule: ColumnRule, value: object, source: str, row: int) -> object:
    if value is None or value == "":
        if rule.default is REQUIRED:
            raise InvalidInput("the value is empty; every row needs one", source=source, row=row, column=rule.name)
        return rule.default
    try:
        return rule.parse(value)
    except ValueError as error:
        raise InvalidInput(str(error), source=source, row=row, column=rule.name) from None
