"""CSV files as they come: separator and encoding recognised, rows of the wrong width told apart."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

from leadre.errors import InvalidInput

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

_BLOCK_BYTES = 1 << 20
_SAMPLE_BYTES = 64 << 10
_MOST_WRONG = 100_000
_LINE_END = re.compile("\r\n?")
_C1 = frozenset(range(0x80, 0xA0))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongWidth:
    """A row with more or fewer values than the header: its 1-based number, what is wrong, its text."""

    row: int
    problem: str
    text: str


class DelimitedFile:
    """An open CSV file. `batches` gives its good rows, all columns as texts; `wrong` those of wrong width so far.

    Args:
        path: .csv, or compressed as .csv.gz or .csv.zst.
        expected: column names that tell the separator.
        encoding: None: UTF-8, with or without a byte order mark.

    Raises:
        InvalidInput: it is empty, or not in that encoding; the message names the encoding it looks like.
    """

    def __init__(self, path: Path, *, expected: Collection[str], encoding: str | None) -> None:
        self.wrong: list[WrongWidth] = []
        self._path, self._encoding = path, encoding
        with pa.input_stream(str(path)) as stream:
            sample = stream.read(_SAMPLE_BYTES)
        if not sample:
            raise InvalidInput("is empty; it needs a header and rows", source=str(path))
        if encoding is None and (looks := _wide_encoding(sample)):
            raise InvalidInput(f"is not UTF-8; it looks like {looks}: --encoding {looks}", source=str(path))
        header = _LINE_END.sub("\n", self._decoded(sample)).lstrip("\ufeff\n").partition("\n")[0]
        self.separator = _separator(header, expected)
        try:
            self._reader = arrow_csv.open_csv(
                str(path),
                read_options=arrow_csv.ReadOptions(
                    block_size=_BLOCK_BYTES, use_threads=False, encoding=encoding or "utf8"
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.separator, newlines_in_values=True, invalid_row_handler=self._wrong_width
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={name: pa.string() for name in next(csv.reader([header], delimiter=self.separator))},
                    strings_can_be_null=False,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise self._explained(error) from None
        self.names: list[str] = self._reader.schema.names
        if not all(pa.types.is_string(kind) for kind in self._reader.schema.types):
            problem = f"a column's name holds a line break, or the header is longer than {_SAMPLE_BYTES >> 10} KiB"
            raise InvalidInput(f"{problem}; write it as one line of plain names", source=str(path))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the good rows.

        Raises:
            InvalidInput: bytes that are not in the encoding, or too many rows of wrong width on end.
        """
        try:
            yield from self._reader
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise self._explained(error) from None

    def _wrong_width(self, bad: arrow_csv.InvalidRow) -> str:
        problem = (
            f"the row has {bad.actual_columns} columns, the header {bad.expected_columns}; put double quotes around "
            f"values that hold {SEPARATORS[self.separator]}"
        )
        self.wrong.append(WrongWidth(row=bad.number - 1, problem=problem, text=bad.text))
        return "error" if len(self.wrong) > _MOST_WRONG else "skip"

    def _decoded(self, sample: bytes) -> str:
        decoder = codecs.getincrementaldecoder(self._encoding or "utf-8")()
        try:
            return decoder.decode(sample)
        except UnicodeDecodeError as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> Exception:
        """Return what an error of the reader means."""
        if len(self.wrong) > _MOST_WRONG:
            first = self.wrong[0]
            problem = f"{first.problem}; so it is with {_MOST_WRONG:,} rows on end"
            return InvalidInput(problem, source=str(self._path), row=first.row)
        if isinstance(error, UnicodeDecodeError) and self._encoding is not None:
            problem = f"is not in {self._encoding}: byte 0x{error.object[error.start]:02x} has no meaning there"
            return InvalidInput(f"{problem}; --encoding latin-1 reads any byte", source=str(self._path))
        if "UTF8" in str(error) or isinstance(error, UnicodeDecodeError):
            return _not_utf8(self._path)
        if "straddling" in str(error):
            problem = (
                f"a row is longer than {_BLOCK_BYTES >> 20} MiB: a double quote that begins a value is never closed; "
                "double it, and put it in double quotes"
            )
            return InvalidInput(problem, source=str(self._path))
        return error


def _separator(header: str, expected: Collection[str]) -> str:
    """Return the separator that gives the header the most expected columns, or else the most columns."""

    def fit(separator: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=separator), [])
        return sum(name in expected for name in names), len(names)

    return max(SEPARATORS, key=fit)


def _wide_encoding(sample: bytes) -> str | None:
    """Return the encoding of two or four bytes a character that bytes look like; None for any other."""
    if sample.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if sample.count(0) > len(sample) // 4:
        return "utf-16-le" if sample[1::2].count(0) > sample[0::2].count(0) else "utf-16-be"
    return None


def _not_utf8(path: Path) -> InvalidInput:
    """Return the error that says where a file stops being UTF-8, and what it looks like."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with pa.input_stream(str(path)) as stream:
        while block := stream.read(_SAMPLE_BYTES):
            try:
                line += decoder.decode(block).count("\n")
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                looks = "cp1252" if _C1 & set(block) else "latin-1"
                problem = f"is not UTF-8 (line {line}, byte 0x{byte:02x}); it looks like {looks}: --encoding {looks}"
                return InvalidInput(problem, source=str(path))
    return InvalidInput("is not UTF-8: it ends within a character; is it cut off?", source=str(path))
