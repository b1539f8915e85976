"""Import of a user's own data: a folder of CSV or Parquet files. docs/data_format.md describes them.

One import is one transaction: every row is staged and checked before the first is written, and what fails leaves the
database as it was. Memory holds a batch of rows, whatever the files' size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from leadre.errors import InvalidInput
from leadre.store.importers.load import ImportCounts, Progress
from leadre.store.importers.tabular.files import SUFFIXES, find_files
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.rejected import Kind, Rejected
from leadre.store.importers.tabular.rows import TableReader
from leadre.store.importers.tabular.rules import OPTIONAL, rules_of
from leadre.store.importers.tabular.staged_import import StagedImport
from leadre.store.records.database import connect, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did.

    Args:
        counts: rows of the data set by table, whether or not they were there before.
        rejected: how many rows were left out, by table and kind.
        became_content: behaviors of unknown ads that count as behaviors of the content domain.
        facts: what was recognised or assumed, and what was read otherwise than it stands, in words.
    """

    counts: ImportCounts
    rejected: dict[tuple[str, Kind], int]
    became_content: int
    facts: tuple[str, ...]


def import_tabular(
    folder: Path,
    *,
    database_url: str,
    now: datetime,
    rejected: Path,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Write ads, users, content items, behaviors and impressions from a folder.

    Ads without `created_at`, and all profiles, count as known since the first behavior or impression of the folder.

    Args:
        folder: of `ads`, `users`, `behaviors` and, optionally, `content_items` and `impressions`; see `find_files`.
        database_url: the system of record, migrated.
        now: when the import takes place; no behavior or impression is more than a day after it.
        rejected: the file that lists rows that are left out; untouched when the options let none be.
        options: how to read the files; all strict by default.
        progress: told of every batch.

    Raises:
        InvalidInput: a missing file, an unknown or missing column, a bad row (or, where those are skipped, too many),
            with file, row and column; nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    options = options or ImportOptions()
    rules = rules_of(options, now=now)
    paths = {table: find_files(folder, table) for table in rules}
    for table, found in paths.items():
        if not found and table not in OPTIONAL:
            raise InvalidInput(
                f"there is neither {table}.csv nor {table}.parquet (nor {', '.join(SUFFIXES[1:-1])}, nor a folder of "
                "parts)",
                source=str(folder),
            )
    engine = connect(database_url, statement_timeout_s=0)  # one INSERT carries a whole table
    try:
        with Rejected(options, folder, rejected) as bad:
            readers = {
                table: TableReader(table, paths[table], of.columns, options=options, rejected=bad, check=of.check)
                for table, of in rules.items()
                if paths[table]
            }
            with transaction(engine) as connection:
                staged = StagedImport(connection, rules, readers, bad, options=options, now=now, progress=progress)
                became_content = staged.run(paths)
    finally:
        engine.dispose()
    counts = {table: readers[table].rows_read - bad.of_table(table) if table in readers else 0 for table in rules}
    facts = tuple(fact for reader in readers.values() for fact in reader.facts())
    return Imported(
        counts=ImportCounts(**counts), rejected=dict(bad.counts), became_content=became_content, facts=facts
    )
