"""Rejected rows: what is wrong with a row, by kind, and the file that lists every row an import left out."""

from __future__ import annotations

import csv
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

from leadre.errors import InvalidInput
from leadre.store.importers.tabular.options import ImportOptions

HEADER = ("file", "row", "column", "value", "reason", "kind")
"""Columns of rejected.csv."""

LONGEST_VALUE = 1000
"""Characters of a value in rejected.csv; a longer one ends in an ellipsis."""


class Kind(StrEnum):
    """What is wrong with a row, in words that programs may rely on."""

    BAD_ID = "bad_id"
    BAD_LIST = "bad_list"
    BAD_NUMBER = "bad_number"
    BAD_SCHEDULE = "bad_schedule"
    BAD_TARGETING = "bad_targeting"
    BAD_TEXT = "bad_text"
    BAD_TIME = "bad_time"
    BAD_YES_NO = "bad_yes_no"
    DUPLICATE_ID = "duplicate_id"
    MISSING_VALUE = "missing_value"
    TOO_LONG = "too_long"
    UNKNOWN_AD = "unknown_ad"
    UNKNOWN_CHOICE = "unknown_choice"
    UNKNOWN_CONTENT = "unknown_content"
    UNKNOWN_USER = "unknown_user"
    WRONG_WIDTH = "wrong_width"


class BadValue(ValueError):
    """A value that cannot be read.

    Args:
        kind: what is wrong, for programs.
        problem: what is wrong and what would do, for people.
    """

    def __init__(self, kind: Kind, problem: str) -> None:
        self.kind = kind
        super().__init__(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be imported: where it is, and what is wrong with it.

    Args:
        table: what its file holds.
        path: its file.
        row: 1-based; the header is not counted.
        column: as the file names it; empty where the row as a whole is wrong.
        value: as the file holds it.
        problem: what is wrong and what would do.
        kind: the same for programs.
    """

    table: str
    path: Path
    row: int
    column: str
    value: Any
    problem: str
    kind: Kind


class Rejected:
    """What becomes of bad rows: an error at the first, or a line in a file for each. A context; it writes at its end.

    The file is whole or as it was before, and readable by its owner alone. It is written after an `InvalidInput` too,
    so that there is something to look at.

    Args:
        options: which rows may be left out.
        folder: of the data set; rejected.csv names files below it.
        path: rejected.csv.
    """

    def __init__(self, options: ImportOptions, folder: Path, path: Path) -> None:
        self.counts: Counter[tuple[str, Kind]] = Counter()
        self._options, self._folder, self._path = options, folder, path

    def __enter__(self) -> Rejected:
        if self._options.may_reject:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                handle, self._part = tempfile.mkstemp(prefix=".rejected-", suffix=".csv", dir=self._path.parent)
            except OSError as error:
                raise InvalidInput(
                    f"rejected.csv cannot be written: {error.strerror}; LEADRE_HOME names the data folder",
                    source=str(self._path),
                ) from None
            self._file = os.fdopen(handle, "w", encoding="utf-8", newline="")
            self._lines = csv.writer(self._file)  # RFC 4180: commas, double quotes, lines end in CR LF
            self._lines.writerow(HEADER)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._options.may_reject:
            self._file.close()
            if error is None or isinstance(error, InvalidInput):
                Path(self._part).replace(self._path)
            else:
                Path(self._part).unlink()

    def skips(self, kind: Kind) -> bool:
        """Return whether rows of a kind are left out; otherwise the first is an error."""
        return self._options.unknown_ads != "stop" if kind is Kind.UNKNOWN_AD else self._options.on_bad_row == "skip"

    def add(self, bad: BadRow) -> None:
        """Leave a row out.

        Raises:
            InvalidInput: rows of its kind may not be left out.
        """
        if not self.skips(bad.kind):
            remedy = "" if bad.kind is Kind.UNKNOWN_AD else " (or leave bad rows out: --on-bad-row skip)"
            raise InvalidInput(bad.problem + remedy, source=str(bad.path), row=bad.row, column=bad.column or None)
        self.counts[bad.table, bad.kind] += 1
        value = "" if bad.value is None else str(bad.value)
        value = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"
        file = bad.path.relative_to(self._folder)
        self._lines.writerow((file, bad.row, bad.column, value, bad.problem, bad.kind.value))

    def of_table(self, table: str) -> int:
        """Return how many rows of a table were left out."""
        return sum(count for (of, _), count in self.counts.items() if of == table)

    def check_share(self, rows_read: dict[str, int]) -> None:
        """Check that no table has too many bad rows. Those of unknown ads have their own option, and do not count.

        Raises:
            InvalidInput: more than `max_bad_share` of a table's rows are bad.
        """
        for table, rows in rows_read.items():
            bad = self.of_table(table) - self.counts[table, Kind.UNKNOWN_AD]
            if bad > rows * self._options.max_bad_share:
                raise InvalidInput(
                    f"{bad:,} of {rows:,} rows of {table} are bad ({bad / rows:.2%}), more than --max-bad-share "
                    f"{self._options.max_bad_share:g} allows: nothing was imported; {self._path} lists them, mend them "
                    "or raise it"
                )
