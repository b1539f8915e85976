"""What a database error may say: tables, columns and constraints, and no value of any row.

PostgreSQL quotes rows in its errors ("Failing row contains (...)", "invalid input syntax for type bigint: ..."), and
errors end in logs; behaviors and profiles are personal data. So errors are made discreet where they arise, in the
connection: whoever wraps or logs one later has nothing to leave out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions

_QUOTES_NO_VALUE = (
    "08",
    "23",
    "25",
    "28",
    "3D",
    "3F",
    "40",
    "42501",
    "42703",
    "42P01",
    "53",
    "54",
    "55",
    "57",
    "58",
    "XX",
)
"""SQLSTATEs, or their first letters, whose first line names things only: PostgreSQL's appendix A."""


class DiscreetCursor(extensions.cursor):
    """A cursor whose errors hold no values."""

    def execute(self, *arguments: Any) -> None:
        """See psycopg2."""
        with discreet():
            super().execute(*arguments)

    def executemany(self, *arguments: Any) -> None:
        """See psycopg2."""
        with discreet():
            super().executemany(*arguments)

    def copy_expert(self, *arguments: Any) -> None:
        """See psycopg2."""
        with discreet():
            super().copy_expert(*arguments)

    def fetchone(self) -> tuple[Any, ...] | None:
        """See psycopg2: a server-side cursor computes its rows when they are fetched."""
        with discreet():
            return super().fetchone()

    def fetchmany(self, *arguments: Any) -> list[tuple[Any, ...]]:
        """See psycopg2."""
        with discreet():
            return super().fetchmany(*arguments)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """See psycopg2."""
        with discreet():
            return super().fetchall()


class DiscreetConnection(extensions.connection):
    """A connection whose errors hold no values."""

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """See psycopg2."""
        return super().cursor(*arguments, **{"cursor_factory": DiscreetCursor, **options})

    def commit(self) -> None:
        """See psycopg2: deferred constraints are checked here."""
        with discreet():
            super().commit()


@contextmanager
def discreet(driver: type[Exception] = psycopg2.Error) -> Iterator[None]:
    """Take the values out of errors.

    Args:
        driver: whose: the `Error` of psycopg2 (ours) or of psycopg (Feast's).
    """
    try:
        yield
    except driver as error:
        error.args = (_said(error),)
        raise


def _said(error: Any) -> str:
    state, server = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None), error.diag
    if state is None or server.message_primary is None:  # the driver's own words, of the connection
        return str(error)
    if state.startswith(_QUOTES_NO_VALUE):
        return str(server.message_primary)
    names = {
        "table": server.table_name,
        "column": server.column_name,
        "constraint": server.constraint_name,
        "type": server.datatype_name,
    }
    where = "".join(f", {what} {name}" for what, name in names.items() if name)
    return f"{type(error).__name__} (SQLSTATE {state}{where}); the server's own words may quote rows and are left out"
