"""Months: the partitions of tables that grow with every refresh. For LEADRE §4.4.1's user feature database.

A month of `event_at` (UTC) is a table `partitions.<table>_YYYY_MM`, made before its first row and dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, text

PARTITIONED = ("interest_summaries", "behavior_sequences", "retrieval_log")
"""The tables that have months."""
SCHEMA = "partitions"


def ensure_months(connection: Connection, table: str, times: Iterable[datetime]) -> None:
    """Make the months that hold these times, where they are missing. Readers and writers of other months go on.

    Args:
        connection: in a transaction.
        table: one of `PARTITIONED`.
        times: aware.
    """
    months = sorted({month_of(time) for time in times})
    names = {name_of(table, month): month for month in months}
    # From the table and not by to_regclass(), whose cache may not know yet what the lock waited for.
    query = text(
        "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE NOT EXISTS ("
        "SELECT FROM pg_class WHERE relname = name AND relnamespace = CAST(:schema AS regnamespace))"
    )
    wanted = {"names": list(names), "schema": SCHEMA}
    if not connection.scalars(query, wanted).all():
        return
    lock = text("SELECT pg_advisory_xact_lock(hashtext(:table))")  # two writers at the turn of a month
    connection.execute(lock, {"table": f"{SCHEMA}.{table}"})
    for name in connection.scalars(query, wanted).all():
        start, end = names[name], _next(names[name])
        # Attached, not created in place: that would lock out everybody who reads the table.
        connection.execute(text(f"CREATE TABLE {SCHEMA}.{name} (LIKE {table} INCLUDING ALL)"))
        connection.execute(
            text(
                f"ALTER TABLE {table} ATTACH PARTITION {SCHEMA}.{name} "
                f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
            )
        )


def months_before(connection: Connection, table: str, before: datetime) -> list[str]:
    """Return the names of the months that end at or before a time, oldest first."""
    query = text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = CAST(:table AS regclass) ORDER BY 1"
    )
    last = name_of(table, month_of(before))
    return [name for name in connection.scalars(query, {"table": table}) if name < last]


def drop_months_before(connection: Connection, table: str, before: datetime) -> list[str]:
    """Drop the months that end at or before a time; return their names.

    Args:
        connection: in a transaction.
        table: one of `PARTITIONED`.
        before: the month that holds it stays.
    """
    names = months_before(connection, table, before)
    for name in names:
        connection.execute(text(f"DROP TABLE {SCHEMA}.{name}"))
    return names


def month_of(time: datetime) -> datetime:
    """Return the first instant of a time's month, in UTC."""
    return time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def name_of(table: str, month: datetime) -> str:
    """Return the name of a month's partition, without its schema."""
    return f"{table}_{month:%Y_%m}"


def _next(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
