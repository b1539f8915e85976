"""Rows of a user's own CSV or Parquet files: read in batches, each distinct value of a column checked once.

Whatever is wrong is told with file, row and column. docs/data_format.md is the user's side of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from leadre.errors import InvalidInput
from leadre.names import did_you_mean
from leadre.store.importers.tabular.columns import REQUIRED, Column, ColumnRule, RowCheck, distinct, parse_all
from leadre.store.importers.tabular.delimited import SEPARATORS, DelimitedFile, WrongWidth
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.rejected import BadRow, BadValue, Kind, Rejected
from leadre.store.importers.tabular.times import TimeReader

_BATCH_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Good rows of one file: their 1-based numbers, and a column for every rule by its name."""

    part: int
    rows: NDArray[np.int64]
    columns: dict[str, Column]


class TableReader:
    """Reads the files of one table.

    Args:
        table: its name.
        paths: its files, in order; `Batch.part` is a position in them.
        rules: of its columns.
        options: how to read them.
        rejected: takes the bad rows.
        check: what else may be wrong with a row.
        wanted: which rows of a batch as the file has it are read at all, bool[R]; None: all.

    Attributes:
        rows_read: good and bad ones, of those that are wanted.
        marks: how many rows of which column were read otherwise than they stand, by (column, what was done).
    """

    def __init__(
        self,
        table: str,
        paths: Sequence[Path],
        rules: Sequence[ColumnRule],
        *,
        options: ImportOptions,
        rejected: Rejected,
        check: RowCheck | None = None,
        wanted: Callable[[pa.RecordBatch], pa.BooleanArray] | None = None,
    ) -> None:
        self.rows_read = 0
        self.marks: Counter[tuple[str, str]] = Counter()
        self._table, self._paths, self._rules = table, paths, rules
        self._options, self._rejected, self._check, self._wanted = options, rejected, check, wanted
        self._layouts: dict[str, None] = {}
        self._theirs: dict[str, str] = {}

    def theirs(self, column: str) -> str:
        """Return the name that the file read last has for one of our columns."""
        return self._theirs.get(column, column)

    def facts(self) -> list[str]:
        """Return what was recognised in the files, in words."""
        times = ((rule.name, rule.parse) for rule in self._rules if isinstance(rule.parse, TimeReader))
        return [
            *(f"{self._table}: {layout}" for layout in self._layouts),
            *(f"{self._table}.{column}: {fact}" for column, reader in times for fact in reader.facts()),
            *(f"{self._table}.{column}: {count:,} {mark}" for (column, mark), count in sorted(self.marks.items())),
        ]

    def batches(self) -> Iterator[Batch]:
        """Yield the good rows; memory holds one batch.

        Raises:
            InvalidInput: a file cannot be read, has no rows, an unknown, missing or repeated column, or a bad row that
                may not be left out.
        """
        for part, path in enumerate(self._paths):
            before = self.rows_read
            try:
                yield from self._batches_of(part, path)
            except (pa.ArrowException, OSError) as error:
                said = str(error).splitlines()[0]
                problem = f"cannot be read after row {self.rows_read - before}: {said}"
                raise InvalidInput(problem, source=str(path)) from None
            if self.rows_read == before and len(self._paths) == 1 and self._wanted is None:
                raise InvalidInput("holds no rows; fill it, or remove it if it is optional", source=str(path))
        if self.rows_read == 0 and self._wanted is None:
            raise InvalidInput("holds no rows; fill it, or remove it", source=str(self._paths[0].parent))

    def _batches_of(self, part: int, path: Path) -> Iterator[Batch]:
        file: DelimitedFile | None = None
        if path.suffix == ".parquet":
            opened = parquet.ParquetFile(path)
            names, batches = opened.schema_arrow.names, opened.iter_batches(batch_size=_BATCH_ROWS)
            kinds = dict(zip(names, opened.schema_arrow.types, strict=True))
        else:
            expected = {self._options.columns.get(key, rule.name) for rule in self._rules for key in self._keys(rule)}
            file = DelimitedFile(path, expected=expected, encoding=self._options.encoding)
            names, batches, kinds = file.names, file.batches(), {}
            encoding = f", {self._options.encoding}" if self._options.encoding else ""
            self._layouts[f"values separated by {SEPARATORS[file.separator]}{encoding}"] = None
        self._theirs = theirs = self._matched(names, str(path))
        _refuse_coarse_times(self._rules, theirs, kinds, str(path))
        number = 0
        for batch in batches:
            wrong = file.wrong if file is not None else []
            rows = _numbers(number, batch.num_rows, [row.row for row in wrong])
            number = int(rows[-1]) if len(rows) else number
            passed = [row for row in wrong if row.row <= number]  # those further on have been read ahead
            wrong[:] = [row for row in wrong if row.row > number]
            if self._wanted is not None:
                keep = self._wanted(batch)
                batch, rows = batch.filter(keep), rows[keep.to_numpy(zero_copy_only=False)]
            yield self._parsed(part, path, batch, rows, passed, theirs)
        if file is not None:
            self._refuse_all([self._wrong(path, row) for row in file.wrong])

    def _keys(self, rule: ColumnRule) -> tuple[str, str]:
        return f"{self._table}.{rule.name}", rule.name

    def _matched(self, names: Sequence[str], source: str) -> dict[str, str]:
        """Return the file's name of each of our columns that it has."""
        theirs: dict[str, str] = {}
        missing = []
        for rule in self._rules:
            here, everywhere = (self._options.columns.get(key) for key in self._keys(rule))
            if here is not None and here not in names:
                problem = f"there is no column {here!r} to be {rule.name}; the file has {', '.join(names)}"
                raise InvalidInput(problem, source=source)
            found = here or (everywhere if everywhere is not None and everywhere in names else rule.name)
            if found in names:
                theirs[rule.name] = found
            elif rule.default is REQUIRED:
                missing.append(rule.name)
        if missing:
            has, options = f"the file has {', '.join(names)}", ",".join(f"{name}=NAME" for name in missing)
            if len(missing) == 1:
                problem = f"the column is missing; {has}; --columns {options} names it"
                raise InvalidInput(problem, source=source, column=missing[0])
            raise InvalidInput(
                f"the columns {', '.join(missing)} are missing; {has}; --columns {options} names them", source=source
            )
        for name in names:
            if names.count(name) > 1:
                raise InvalidInput("the column appears twice", source=source, column=name)
        known = [rule.name for rule in self._rules]
        unknown = [name for name in names if name not in theirs.values()]
        hints = ["" if name in known else did_you_mean(name, known) for name in unknown]
        if len(unknown) == 1:
            problem = f"unknown column; {hints[0]}known are {', '.join(known)}; --columns OURS={unknown[0]} renames it"
            raise InvalidInput(problem, source=source, column=unknown[0])
        if unknown:
            raise InvalidInput(
                f"unknown columns {', '.join(unknown)}; {''.join(hints)}known are {', '.join(known)}; "
                "--columns OURS=THEIRS renames one; take the others out of the file",
                source=source,
            )
        return theirs

    def _parsed(
        self,
        part: int,
        path: Path,
        batch: pa.RecordBatch,
        rows: NDArray[np.int64],
        wrong: Sequence[WrongWidth],
        theirs: dict[str, str],
    ) -> Batch:
        columns: dict[str, Column] = {}
        marks: dict[str, dict[int, str]] = {}
        faults: dict[int, tuple[str, Any, BadValue]] = {}  # of a row's bad columns the first counts
        for rule in self._rules:
            name = theirs.get(rule.name)
            raw, index = distinct(batch.column(name)) if name else ([None], np.zeros(batch.num_rows, np.int64))
            values, bad, marks[rule.name] = parse_all(rule, raw)
            columns[rule.name] = Column(values=values, index=index)
            if bad:
                for place in np.flatnonzero(np.isin(index, list(bad))).tolist():
                    faults.setdefault(place, (name or rule.name, raw[index[place]], bad[int(index[place])]))
        if self._check is not None:
            blamed = self._check.blamed
            checked = zip(*(columns[name].rows() for name in self._check.columns), strict=True)
            for place, of_row in enumerate(checked):
                if place not in faults and (said := self._check.find(*of_row)) is not None:
                    value = columns[blamed].values[columns[blamed].index[place]] if blamed else None
                    faults[place] = (theirs.get(blamed, blamed), value, BadValue(*said))
        self._refuse_all(
            [self._wrong(path, row) for row in wrong]
            + [
                self._bad(path, int(rows[place]), column, value, error.kind, str(error))
                for place, (column, value, error) in faults.items()
            ]
        )
        self.rows_read += batch.num_rows - len(faults)
        if faults:
            keep = np.ones(batch.num_rows, bool)
            keep[list(faults)] = False
            rows = rows[keep]
            columns = {name: Column(values=of.values, index=of.index[keep]) for name, of in columns.items()}
        for name, marked in marks.items():
            if marked:
                times = np.bincount(columns[name].index, minlength=len(columns[name].values))
                for place, mark in marked.items():
                    self.marks[theirs[name], mark] += int(times[place])
        return Batch(part=part, rows=rows, columns=columns)

    def _wrong(self, path: Path, row: WrongWidth) -> BadRow:
        return self._bad(path, row.row, "", row.text, Kind.WRONG_WIDTH, row.problem)

    def _bad(self, path: Path, row: int, column: str, value: Any, kind: Kind, problem: str) -> BadRow:
        return BadRow(table=self._table, path=path, row=row, column=column, value=value, problem=problem, kind=kind)

    def _refuse_all(self, rows: list[BadRow]) -> None:
        self.rows_read += len(rows)
        for bad in sorted(rows, key=lambda row: row.row):
            self._rejected.add(bad)


def _numbers(before: int, count: int, wrong: Iterable[int]) -> NDArray[np.int64]:
    """Return the next `count` row numbers after `before` that are not of wrong rows."""
    gaps = np.array([row for row in wrong if row > before], np.int64)
    rows = np.arange(before + 1, before + 1 + count + len(gaps), dtype=np.int64)
    return rows[~np.isin(rows, gaps)][:count]


def _refuse_coarse_times(
    rules: Sequence[ColumnRule], theirs: dict[str, str], kinds: dict[str, pa.DataType], source: str
) -> None:
    for rule in rules:
        name = theirs.get(rule.name, "")
        if isinstance(rule.parse, TimeReader) and name in kinds and str(kinds[name]) in ("halffloat", "float"):
            raise InvalidInput(
                "the times are 32-bit floats, which hold 24 bits: a step is 128 s today, and the order within it is "
                "lost; write them as a timestamp, 64-bit floats or whole milliseconds",
                source=source,
                column=name,
            )
