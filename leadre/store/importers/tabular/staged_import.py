"""The transaction of an import of a user's own data: stage every row, check whole tables, write what is left.

Checks that need a whole table run as SQL over the staged rows, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from sqlalchemy import Connection, text

from leadre.errors import InvalidInput
from leadre.store.importers.load import Progress
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.rejected import Kind, Rejected
from leadre.store.importers.tabular.rows import TableReader
from leadre.store.importers.tabular.rules import TableRules
from leadre.store.importers.tabular.staging import (
    Fault,
    StagedTable,
    refuse_foreign_ids,
    refuse_other_ids,
    refuse_shared_ids,
    reject,
    stage,
)
from leadre.store.records.bulk import ROW, Staged, merge
from leadre.store.records.known.writes import write_import
from leadre.store.records.tables import metadata

_CATALOG = {"ads": "ad_id", "users": "user_id", "content_items": "content_id"}
_EVENTS = {"behaviors": "behavior_id", "impressions": "impression_id"}
_KEYS = _CATALOG | _EVENTS
_UNKNOWN = "NOT EXISTS (SELECT FROM {catalog} c WHERE c.{key} = s.{column})"
_REMEDIES = {
    Kind.UNKNOWN_AD: "add it there, leave the row out, or give --unknown-ads skip (or content)",
    Kind.UNKNOWN_USER: "add it there, or leave the row out",
    Kind.UNKNOWN_CONTENT: "add it there, or leave the row out",
}


class StagedImport:
    """One import.

    Args:
        connection: in a transaction.
        rules: of every table, in the order in which they are read.
        readers: of the tables that the data set has.
        bad: takes the rows that are left out.
        options: of the import.
        now: when it takes place.
        progress: told of every batch.
    """

    def __init__(
        self,
        connection: Connection,
        rules: dict[str, TableRules],
        readers: dict[str, TableReader],
        bad: Rejected,
        *,
        options: ImportOptions,
        now: datetime,
        progress: Progress | None,
    ) -> None:
        self._connection, self._rules, self._readers, self._bad = connection, rules, readers, bad
        self._options, self._now, self._progress = options, now, progress
        self._staged: dict[str, StagedTable] = {}
        self._written = 0

    def run(self, paths: dict[str, tuple[Path, ...]]) -> int:
        """Import everything.

        Returns:
            How many behaviors of unknown ads became ones of the content domain.

        Raises:
            InvalidInput: a bad row that may not be left out, or too many that may.
        """
        for table in self._readers:
            self._stage(table, paths[table])
        catalog = [table for table in self._readers if table in _CATALOG]
        for table in catalog:
            self._check_catalog(table)
        self._date_catalog()
        for table in catalog:
            self._write(table)
        became_content = self._check_behaviors()
        if "impressions" in self._readers:
            self._check_ids("impressions", "user_id", "user_text", "users", Kind.UNKNOWN_USER)
            self._check_ids("impressions", "ad_id", "ad_text", "ads", Kind.UNKNOWN_AD)
        self._bad.check_share({table: reader.rows_read for table, reader in self._readers.items()})
        events = {table: self._source(table) for table in self._readers if table in _EVENTS}
        write_import(self._connection, arrived_at=self._now, **events)
        for table in events:
            self._count(table)
        self._connection.execute(text(f"ANALYZE {', '.join(self._rules)}"))
        return became_content

    def _stage(self, table: str, paths: tuple[Path, ...]) -> None:
        reader, of = self._readers[table], self._rules[table]

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in reader.batches():
                yield of.staged(batch)
                if self._progress is not None:
                    self._progress(table, reader.rows_read)

        columns = of.stored()
        target = metadata.tables[table]
        self._staged[table] = stage(self._connection, target, columns, more=of.more, paths=paths, batches=batches())
        if self._progress is not None:
            self._progress(table, reader.rows_read)

    def _check_catalog(self, table: str) -> None:
        key, staged = _KEYS[table], self._staged[table]
        blamed = self._readers[table].theirs(key)
        refuse_shared_ids(self._connection, staged, key, "source_id", blamed=blamed)
        where = f"""
            JOIN (SELECT {key}, min({ROW}) AS first FROM {staged.name} GROUP BY {key} HAVING count(*) > 1) d
                ON d.{key} = s.{key} AND d.first < s.{ROW}
            JOIN {staged.name} f ON f.{ROW} = d.first
        """  # noqa: S608 - names of our own tables and columns
        twice = Fault(
            kind=Kind.DUPLICATE_ID,
            column="source_id",
            blamed=blamed,
            where=where,
            problem=f"{{value}} is already in row {{detail}}; every {blamed} appears once",
            detail="f.file_row",
        )
        reject(self._connection, staged, twice, self._bad)
        refuse_foreign_ids(self._connection, staged, key, "source_id", catalog=table, catalog_key=key, blamed=blamed)
        refuse_other_ids(self._connection, staged, key, "source_id", catalog=table, blamed=blamed)
        if table == "ads":
            advertiser = self._readers[table].theirs("advertiser_id")
            refuse_shared_ids(self._connection, staged, "advertiser_id", "advertiser_text", blamed=advertiser)

    def _date_catalog(self) -> None:
        """Date profiles, and ads without a date, by the first behavior or impression."""
        events = [self._staged[table].name for table in _EVENTS if table in self._staged]
        times = " UNION ALL ".join(f"SELECT min(occurred_at) AS first FROM {name}" for name in events)  # noqa: S608
        first = self._connection.scalar(text(f"SELECT min(first) FROM ({times}) AS firsts"))  # noqa: S608
        if first is None:
            self._bad.check_share({table: reader.rows_read for table, reader in self._readers.items()})
            raise InvalidInput("no row of behaviors can be read; rejected.csv says why")
        self._connection.execute(
            text("UPDATE staged_ads SET event_at = :first WHERE event_at IS NULL"), {"first": first}
        )
        default = f"timestamptz '{first.isoformat()}'"  # PostgreSQL keeps one copy of a constant default
        self._connection.execute(text(f"ALTER TABLE staged_users ADD COLUMN event_at timestamptz DEFAULT {default}"))

    def _write(self, table: str) -> None:
        source, target = self._source(table), metadata.tables[table]
        merge(self._connection, target, source, key=[_KEYS[table]], on_conflict="update")
        self._count(table)

    def _source(self, table: str) -> Staged:
        columns = self._rules[table].stored() + (("event_at",) if table == "users" else ())
        return Staged(name=self._staged[table].name, columns=columns, rows=self._readers[table].rows_read)

    def _count(self, table: str) -> None:
        self._written += self._readers[table].rows_read - self._bad.of_table(table)
        if self._progress is not None:
            self._progress("written", self._written)

    def _check_behaviors(self) -> int:
        self._check_ids("behaviors", "user_id", "user_text", "users", Kind.UNKNOWN_USER)
        became_content = self._make_content() if self._options.unknown_ads == "content" else 0
        for catalog, kind, domain in (
            ("ads", Kind.UNKNOWN_AD, "ad"),
            ("content_items", Kind.UNKNOWN_CONTENT, "content"),
        ):
            self._check_ids("behaviors", "item_id", "item_text", catalog, kind, only=f"s.domain = '{domain}'")
        return became_content

    def _check_ids(
        self, table: str, column: str, column_text: str, catalog: str, kind: Kind, *, only: str = "true"
    ) -> None:
        """Take out rows whose id the catalog does not hold; refuse any whose id is that of another text there."""
        staged, key = self._staged[table], _KEYS[catalog]
        blamed = self._readers[table].theirs(column)
        unknown = Fault(
            kind=kind,
            column=column_text,
            blamed=blamed,
            where=f"WHERE {only} AND {_UNKNOWN.format(catalog=catalog, key=key, column=column)}",
            problem=f"{{value}} is not in {catalog}; {_REMEDIES[kind]}",
        )
        reject(self._connection, staged, unknown, self._bad)
        refuse_foreign_ids(
            self._connection,
            staged,
            column,
            column_text,
            catalog=catalog,
            catalog_key=key,
            blamed=blamed,
            only=only,
        )

    def _make_content(self) -> int:
        """Make behaviors of unknown ads ones of the content domain, and content items of the ads' ids."""
        staged = self._staged["behaviors"]
        unknown = f"s.domain = 'ad' AND {_UNKNOWN.format(catalog='ads', key='ad_id', column='item_id')}"
        other = Fault(
            kind=Kind.UNKNOWN_AD,
            column="item_text",
            blamed=self._readers["behaviors"].theirs("item_id"),
            where="JOIN content_items i ON i.content_id = s.item_id AND i.source_id = s.item_text "
            f"AND (i.title <> i.source_id OR i.category <> '') WHERE {unknown}",
            problem="{value} is not in ads, and the content item of that id is another thing; rename one of them",
        )
        reject(self._connection, staged, other, self._bad)
        made = f"""
            INSERT INTO content_items (content_id, source_id, title, category)
            SELECT DISTINCT ON (s.item_id) s.item_id, s.item_text, s.item_text, '' FROM {staged.name} s
            WHERE {unknown} ORDER BY s.item_id, s.{ROW} ON CONFLICT DO NOTHING
        """  # noqa: S608 - names of our own tables and columns
        self._connection.execute(text(made))
        changed = f"UPDATE {staged.name} s SET domain = 'content', behavior_id = content_behavior_id WHERE {unknown}"  # noqa: S608
        return self._connection.execute(text(changed)).rowcount
