"""How PostgreSQL stands, in a few short questions: version, clock, rights, what there is of each thing.

LEADRE §4.4.1's databases. For `leadre doctor`; nothing here reads a row of a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from leadre.store.records.tables import metadata

_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The server as this connection sees it.

    Args:
        version: "18.6".
        number: of the version, 180006.
        role: who we are there.
        now: its clock.
        lacking: rights on tables of ours that the role lacks, "INSERT on behaviors".
    """

    version: str
    number: int
    role: str
    now: datetime
    lacking: tuple[str, ...]


def standing(connection: Connection) -> Standing:
    """Return how the server stands. Tables that are not there yet lack no right."""
    asked = text("""
        SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_user,
               clock_timestamp()
    """)
    version, number, role, now = connection.execute(asked).one()
    lacking = text("""
        SELECT right_ || ' on ' || name
        FROM unnest(CAST(:names AS text[])) AS name, unnest(CAST(:rights AS text[])) AS right_
        WHERE to_regclass('public.' || name) IS NOT NULL
          AND NOT has_table_privilege(to_regclass('public.' || name), right_) ORDER BY 1
    """)
    names = sorted(table.name for table in metadata.tables.values())
    found = connection.scalars(lacking, {"names": names, "rights": list(_RIGHTS)})
    return Standing(version=version.split()[0], number=number, role=role, now=now, lacking=tuple(found))


def any_rows(connection: Connection, table: str) -> bool:
    """Return whether a table of ours has any row."""
    return bool(connection.scalar(text(f"SELECT EXISTS (SELECT FROM {metadata.tables[table].name})")))  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialized:
    """When the feature views were last brought online: the view that is furthest behind, and a run under way."""

    oldest: datetime | None
    started: datetime | None


def materialized(connection: Connection) -> Materialized:
    """Return when the view that is furthest behind was finished; None: never, or no view was."""
    asked = text("SELECT view, max(finished_at) AS finished FROM materializations GROUP BY view")
    finished = [row.finished for row in connection.execute(asked)]
    started = connection.scalar(text("SELECT min(started_at) FROM materializations WHERE finished_at IS NULL"))
    oldest = min(finished) if finished and None not in finished else None
    return Materialized(oldest=oldest, started=started)
