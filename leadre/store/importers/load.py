"""Load: a whole data set in one transaction, the same way whatever it came from. LEADRE §5.1.

All or nothing: a bad row anywhere leaves the database as it was. Loading the same things again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import text

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Behavior, Impression
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.records.catalog import upsert_ads, upsert_content_items, upsert_users
from leadre.store.records.database import connect, transaction
from leadre.store.records.known.staging import staged_behaviors, staged_impressions
from leadre.store.records.known.writes import write_import

Progress = Callable[[str, int], None]
"""Called with a table's name and the rows of it read so far."""

PROGRESS_ROWS = 10_000

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCounts:
    """Rows of a data set by table, whether or not they were there before."""

    ads: int
    users: int
    content_items: int
    behaviors: int
    impressions: int


def load(
    database_url: str,
    *,
    ads: Iterable[Ad],
    profiles: Iterable[Profile],
    content_items: Iterable[ContentItem],
    behaviors: Iterable[Behavior],
    impressions: Iterable[Impression],
    profiles_at: datetime,
    arrived_at: datetime,
    files: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> ImportCounts:
    """Write a data set; every behavior and impression must name users and items that it or the database holds.

    Args:
        database_url: the system of record, migrated.
        ads: read once, as all the others, in the order of these arguments.
        profiles: of all users.
        content_items: may be empty.
        behaviors: of both domains.
        impressions: may be empty.
        profiles_at: since when the profiles are true.
        arrived_at: when the import takes place; see `write_import`.
        files: the file a table's rows come from, for error messages.
        progress: told every 10,000 rows, and at the end of a table.

    Raises:
        InvalidInput: a bad row, with its file and number. Nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    counts: dict[str, int] = {}

    def counted(table: str, rows: Iterable[Row]) -> Iterator[Row]:
        counts[table] = 0
        for counts[table], row in enumerate(rows, start=1):
            if progress is not None and counts[table] % PROGRESS_ROWS == 0:
                progress(table, counts[table])
            yield row
        if progress is not None:
            progress(table, counts[table])

    engine = connect(database_url, statement_timeout_s=0)  # one INSERT carries a whole table
    table = ""
    try:
        with transaction(engine) as connection:
            table = "ads"
            upsert_ads(connection, counted(table, ads))
            table = "users"
            upsert_users(connection, counted(table, profiles), event_at=profiles_at)
            table = "content_items"
            upsert_content_items(connection, counted(table, content_items))
            table = "behaviors"
            with staged_behaviors(connection, counted(table, behaviors), unknown="refuse") as did:
                table = "impressions"
                with staged_impressions(connection, counted(table, impressions), unknown="refuse") as shown:
                    write_import(connection, behaviors=did, impressions=shown, arrived_at=arrived_at)
            connection.execute(text(f"ANALYZE {', '.join(counts)}"))
    except InvalidInput as error:
        if error.source is not None:
            raise
        source = (files or {}).get(table, table)
        raise InvalidInput(error.problem, source=source, row=error.row, column=error.column) from None
    finally:
        engine.dispose()
    return ImportCounts(**counts)
