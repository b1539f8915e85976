"""Import of a folder of the public Taobao display-ad log, as it is published: four CSV files, 25 GB.

LEADRE §5.1's public stand-in. The files are read twice: first every row is checked, then the rows are written in one
transaction. Memory holds a batch of rows, and the ids of users, ads, and pairs of a category and a brand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from leadre.domain.ads import ContentItem
from leadre.domain.behavior import Behavior
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.importers.load import PROGRESS_ROWS, ImportCounts, Progress, load
from leadre.store.importers.tabular.delimited import DelimitedFile
from leadre.store.importers.tabular.files import find_files
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.rejected import Kind, Rejected
from leadre.store.importers.tabular.rows import TableReader
from leadre.store.importers.taobao import tables

_USER_COLUMN = {"raw_sample": "user", "user_profile": "userid", "behavior_log": "user"}
_NO_BRAND = 0
_BRAND_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TaobaoImported:
    """What an import did: rows by our tables, and how many rows of theirs were left out, by table and kind."""

    counts: ImportCounts
    rejected: dict[tuple[str, Kind], int]


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the first reading has found."""

    ads: set[int]
    users: set[int]
    pairs: set[int]
    first: datetime | None = None

    def note(self, at: datetime) -> None:
        self.first = at if self.first is None else min(self.first, at)


def import_taobao(
    folder: Path,
    *,
    database_url: str,
    now: datetime,
    rejected: Path,
    limit_users: int | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
    max_bad_share: float = 0.01,
    progress: Progress | None = None,
) -> TaobaoImported:
    """Write the ads, users, impressions, clicks and shop behaviors of a folder; see docs/data_format.md.

    Args:
        folder: of `raw_sample`, `ad_feature`, `user_profile` and `behavior_log`, each as CSV (.gz, .zst) or Parquet.
        database_url: the system of record, migrated.
        now: when the import takes place; no row is more than a day after it.
        rejected: the file that lists rows that are left out.
        limit_users: so many of the users who were shown ads, drawn by a hash of their ids; None: all.
        on_bad_row: stop at the first bad row, or leave bad rows out.
        max_bad_share: of a table's rows; with more bad ones nothing is imported.
        progress: told of rows that are checked, and of rows that are written.

    Raises:
        InvalidInput: a missing file or column, a bad row, or too many of them; nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    paths = {table: find_files(folder, table) for table in tables.TABLES}
    for table, found in paths.items():
        if not found:
            raise InvalidInput(f"there is no {table}.csv; the public set has it", source=str(folder))
    options = ImportOptions(
        on_bad_row=on_bad_row,
        max_bad_share=max_bad_share,
        unknown_ads="skip" if on_bad_row == "skip" else "stop",
        columns=tables.COLUMNS,
    )
    chosen = None if limit_users is None else _draw(paths["raw_sample"], limit_users)
    known = _Known(ads=set(), users=set(), pairs=set())
    with Rejected(options, folder, rejected) as bad:
        reading = _Reading(paths, bad, known, options=options, now=now, chosen=chosen)
        _check(reading, known, progress)
        bad.check_share({table: reader.rows_read for table, reader in reading.readers.items()})
    if known.first is None:
        raise InvalidInput("no row can be read; rejected.csv says why", source=str(paths["raw_sample"][0]))
    with _silent(folder) as (again, ignored):
        reading = _Reading(paths, ignored, known, options=again, now=now, chosen=chosen)
        first = known.first
        counts = load(
            database_url,
            ads=(tables.ad_of(row, created_at=first) for row in reading.rows("ad_feature")),
            profiles=_profiles(reading, known),
            content_items=_content_items(known),
            behaviors=_behaviors(reading),
            impressions=(tables.impression_of(row) for row in reading.rows("raw_sample")),
            profiles_at=first,
            arrived_at=now,
            files={table: str(folder) for table in ("ads", "users", "content_items", "behaviors", "impressions")},
            progress=progress,
        )
    return TaobaoImported(counts=counts, rejected=dict(bad.counts))


class _Reading:
    """One reading of the files: good rows as dictionaries, bad ones told to `bad`."""

    def __init__(
        self,
        paths: dict[str, tuple[Path, ...]],
        bad: Rejected,
        known: _Known,
        *,
        options: ImportOptions,
        now: datetime,
        chosen: pa.Array | None,
    ) -> None:
        self.readers: dict[str, TableReader] = {}
        self._paths, self._bad, self._known = paths, bad, known
        self._options, self._now, self._chosen = options, now, chosen

    def rows(self, table: str, progress: Progress | None = None) -> Iterator[dict[str, Any]]:
        columns = tables.columns_of(now=self._now)[table]
        seen: set[int] = set()

        def twice(_: str, key: int) -> bool:
            return key in seen or bool(seen.add(key))  # type: ignore[func-returns-value]

        checks = tables.checks_of(ads=self._known.ads, users=self._known.users, twice=twice)
        self.readers[table] = reader = TableReader(
            table,
            self._paths[table],
            columns,
            options=self._options,
            rejected=self._bad,
            check=checks[table],
            wanted=self._wanted(table),
        )
        names = [rule.name for rule in columns]
        told = 0
        for batch in reader.batches():
            for values in zip(*(batch.columns[name].rows() for name in names), strict=True):
                yield dict(zip(names, values, strict=True))
            if progress is not None and reader.rows_read - told >= PROGRESS_ROWS:
                told = reader.rows_read
                progress(f"checked {table}", told)
        if progress is not None:
            progress(f"checked {table}", reader.rows_read)

    def _wanted(self, table: str) -> Callable[[pa.RecordBatch], pa.BooleanArray] | None:
        if self._chosen is None or table not in _USER_COLUMN:
            return None
        return lambda batch: _is_in(batch, _USER_COLUMN[table], self._chosen)


def _check(reading: _Reading, known: _Known, progress: Progress | None) -> None:
    """Read everything once: what is bad is told, and what the second reading must know is noted."""
    for row in reading.rows("ad_feature", progress):
        known.ads.add(row["adgroup_id"])
    for row in reading.rows("raw_sample", progress):
        known.users.add(row["user"])
        known.note(row["time_stamp"])
    for row in reading.rows("user_profile", progress):
        known.users.add(row["userid"])
    for row in reading.rows("behavior_log", progress):
        known.pairs.add(_pair(row["cate"], row["brand"]))
        known.note(row["time_stamp"])


def _profiles(reading: _Reading, known: _Known) -> Iterator[Profile]:
    """Yield the profiles; users who were shown ads and have none get an empty one."""
    left = set(known.users)
    for row in reading.rows("user_profile"):
        left.discard(row["userid"])
        yield tables.profile_of(row)
    for user_id in sorted(left):
        yield Profile(user_id=user_id)


def _behaviors(reading: _Reading) -> Iterator[Behavior]:
    for row in reading.rows("raw_sample"):
        if row["clk"]:
            yield tables.click_of(row)
    for row in reading.rows("behavior_log"):
        yield tables.behavior_of(row)


def _content_items(known: _Known) -> Iterator[ContentItem]:
    for pair in sorted(known.pairs):
        brand = pair & ((1 << _BRAND_BITS) - 1)
        yield tables.content_of(pair >> _BRAND_BITS, None if brand == _NO_BRAND else brand - 1)


def _pair(cate: int, brand: int | None) -> int:
    return cate << _BRAND_BITS | (_NO_BRAND if brand is None else brand + 1)


def _is_in(batch: pa.RecordBatch, column: str, chosen: pa.Array) -> pa.BooleanArray:
    """Return which rows are of chosen users: a value that cannot be read is of none."""
    if column not in batch.schema.names:
        return pa.array(np.ones(batch.num_rows, np.bool_))  # the reader says what is missing
    return pc.is_in(batch.column(column).cast(pa.string()), value_set=chosen)


def _draw(paths: tuple[Path, ...], count: int) -> pa.Array:
    """Return the ids, as texts, of the `count` users of raw_sample that come first by a hash: the same ones always."""
    found = np.zeros(0, np.uint64)
    for path in paths:
        if path.suffix == ".parquet":
            batches: Any = parquet.ParquetFile(path).iter_batches(columns=["user"])
        else:
            batches = DelimitedFile(path, expected={"user"}, encoding=None).batches()
        for batch in batches:
            texts = batch.column("user").cast(pa.string())
            plain = texts.filter(pc.match_substring_regex(texts, r"^[0-9]{1,18}$"))
            found = np.union1d(found, plain.cast(pa.uint64()).to_numpy())
    mixed = found * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return pa.array([str(user) for user in found[np.argsort(mixed, kind="stable")[:count]].tolist()], pa.string())


@contextmanager
def _silent(folder: Path) -> Iterator[tuple[ImportOptions, Rejected]]:
    """Give what leaves bad rows out once more: they have been told."""
    options = ImportOptions(on_bad_row="skip", max_bad_share=1, unknown_ads="skip", columns=tables.COLUMNS)
    with (
        tempfile.TemporaryDirectory() as place,
        Rejected(options, folder, Path(place) / "rejected.csv") as rejected,
    ):
        yield options, rejected
