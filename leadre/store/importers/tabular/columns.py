"""Columns of a user's own data: each distinct value of a batch is read once, whatever the number of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from leadre.store.importers.tabular.rejected import BadValue, Kind
from leadre.store.importers.tabular.times import TimeReader
from leadre.store.importers.tabular.values import Marked

_TICKS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}  # microseconds; nanoseconds are cut to them first


class _Required:
    pass


REQUIRED = _Required()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRule:
    """A column of a file: how a value is read, and what stands for an empty one (`REQUIRED`: it may not be empty).

    `parse` gets a text (CSV) or Parquet's own type, and raises `BadValue` saying what is wrong.
    """

    name: str
    parse: Callable[[Any], Any]
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCheck:
    """What may be wrong with a row as a whole: `find` gets the values of `columns`, returns the kind and the problem.

    `blamed` is the column that is named; empty: none.
    """

    columns: tuple[str, ...]
    find: Callable[..., tuple[Kind, str] | None]
    blamed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Values of a batch: the distinct ones, and for each row which of them it has."""

    values: Sequence[Any]
    index: NDArray[np.int64]

    def array(self, kind: pa.DataType, part: int | None = None) -> pa.Array:
        """Return the rows' values as an Arrow array; of values that are tuples, one part."""
        values = self.values if part is None else [None if value is None else value[part] for value in self.values]
        return pa.array(values, kind).take(pa.array(self.index))

    def rows(self) -> list[Any]:
        """Return the rows' values."""
        return [self.values[place] for place in self.index.tolist()]


def parse_all(rule: ColumnRule, raw: Sequence[Any]) -> tuple[list[Any], dict[int, BadValue], dict[int, str]]:
    """Return the values, what is wrong with which of them, and what was done to which of them."""
    values: list[Any] = [None] * len(raw)
    bad: dict[int, BadValue] = {}
    marks: dict[int, str] = {}
    if isinstance(rule.parse, TimeReader):
        rule.parse.look(raw)
    parse, default = rule.parse, rule.default
    for place, value in enumerate(raw):
        if value is None or value == "":
            if default is REQUIRED:
                bad[place] = BadValue(Kind.MISSING_VALUE, "the value is empty; every row needs one")
            else:
                values[place] = default
            continue
        try:
            values[place] = parsed = parse(value)
        except BadValue as error:
            bad[place] = error
            continue
        if isinstance(parsed, Marked):
            values[place], marks[place] = parsed
    return values, bad, marks


def distinct(column: pa.Array) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct values of a column, and for each row which of them it has."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        encoded = pc.dictionary_encode(column, null_encoding="encode")
    except pa.ArrowNotImplementedError:  # lists, which have no equality there
        return column.to_pylist(), np.arange(len(column), dtype=np.int64)
    values = encoded.dictionary
    plain = _instants(values) if pa.types.is_timestamp(values.type) else values.to_pylist()
    return plain, encoded.indices.to_numpy().astype(np.int64)


def _instants(column: pa.Array) -> list[Any]:
    """Return timestamps as datetimes, aware if they have a zone; one beyond Python's years as a text that says so."""
    kind, ticks = column.type, column
    if kind.unit == "ns":
        ticks = column.cast(pa.timestamp("us", kind.tz), safe=False)  # Python's datetime holds no nanoseconds
    since = datetime.fromisoformat("1970-01-01T00:00:00" + ("+00:00" if kind.tz else ""))
    instants: list[Any] = []
    for tick in ticks.cast(pa.int64()).to_pylist():
        try:
            instants.append(None if tick is None else since + timedelta(microseconds=tick * _TICKS[kind.unit]))
        except OverflowError:
            instants.append(f"a time {tick} {kind.unit} from 1970")
    return instants
