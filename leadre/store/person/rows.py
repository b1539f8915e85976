"""A person's rows in PostgreSQL: removed in one transaction, and looked for in every table that there is.

Removing knows our tables. Looking does not: it asks PostgreSQL's catalog which tables and columns exist, so that a
table that nobody thought of is found out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from sqlalchemy import Connection, text

from leadre.store.person.whom import Person

_NAMES_OTHER_THINGS = frozenset({"ad_id", "item_id", "item_ids", "content_id", "retrieved_ad_ids", "advertiser_id"})
_NAMED_BY_THEIR_OWNER = frozenset({"ads", "content_items"})
_HOLDS = {
    "int8": "{column} = :user_id",
    "_int8": ":user_id = ANY({column})",
    "text": "{column} = :source_id",
    "varchar": "{column} = :source_id",
    "_text": ":source_id = ANY({column})",
    "jsonb": "jsonb_path_exists({column}, '$.** ? (@ == $it)', jsonb_build_object('it', CAST(:source_id AS text)))",
}
"""By type of a column: whether a row holds the person."""


def remove_rows(
    connection: Connection, person: Person, *, report: Callable[[int, int], object] = lambda *_: None
) -> dict[str, int]:
    """Delete a person's rows and take the person out of lists of users; return how many rows of each table.

    Whoever writes for the person meanwhile waits until the transaction ends, and then makes a new, empty person.

    Args:
        connection: in a transaction.
        person: whose.
        report: called with how many columns are done, and of how many.
    """
    columns = [found for found in _columns(connection) if found[3] in ("user_id", "user_ids")]
    columns.sort(key=lambda found: found[2] != "user_state")  # first: its row's lock is what writers wait for
    removed: dict[str, int] = {}
    for done, (schema, table, shown, column, kind) in enumerate(columns):
        report(done, len(columns))
        statement = (
            f"DELETE FROM {schema}.{table} WHERE {column} = :user_id"  # noqa: S608 - names of the catalog, quoted by it
            if kind == "int8"
            else f"UPDATE {schema}.{table} SET {column} = array_remove({column}, CAST(:user_id AS bigint)) "  # noqa: S608
            f"WHERE :user_id = ANY({column})"
        )
        removed[shown] = (
            removed.get(shown, 0) + connection.execute(text(statement), {"user_id": person.user_id}).rowcount
        )
    report(len(columns), len(columns))
    return removed


def find_rows(
    connection: Connection, person: Person, *, report: Callable[[int, int], object] = lambda *_: None
) -> dict[str, int]:
    """Return how many rows of each table hold the person: by the 64-bit id, or by the owner's name for it.

    Every column that could hold either is looked at, in tables of any schema, Feast's registry included; but for those
    that name ads and other things, since an ad may have the same name. Of a person named by a number only columns that
    are of users: elsewhere the number says nothing. Reads the tables as a whole where no index helps.

    Args:
        connection: to the system of record.
        person: who.
        report: called with how many tables are done, and of how many.
    """
    conditions: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for schema, table, shown, column, kind in _columns(connection):
        of_users = column in ("user_id", "user_ids") or (shown == "users" and column == "source_id")
        if of_users or (person.source_id is not None and not _of_another_thing(shown, column)):
            conditions[schema, table, shown].append(_HOLDS[kind].format(column=column))
    source_id = str(person.user_id) if person.source_id is None else person.source_id
    found: dict[str, int] = {}
    for done, ((schema, table, shown), holds) in enumerate(conditions.items()):
        report(done, len(conditions))
        query = f"SELECT count(*) FROM {schema}.{table} WHERE {' OR '.join(holds)}"  # noqa: S608 - as above
        known = {
            name: value
            for name, value in (("user_id", person.user_id), ("source_id", source_id))
            if f":{name}" in query
        }
        found[shown] = connection.execute(text(query), known).scalar_one()
    report(len(conditions), len(conditions))
    return found


def materialization_under_way(connection: Connection) -> bool:
    """Return whether some materialization is not finished: it may hold rows that it read before."""
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM materializations WHERE finished_at IS NULL)")))


def _of_another_thing(table: str, column: str) -> bool:
    return column in _NAMES_OTHER_THINGS or (table in _NAMED_BY_THEIR_OWNER and column == "source_id")


def _columns(connection: Connection) -> list[tuple[str, str, str, str, str]]:
    """Return schema and table for SQL, the table for people, a column and its type, of all that could hold a person."""
    query = text("""
        SELECT quote_ident(n.nspname), quote_ident(c.relname),
            CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END,
            quote_ident(a.attname), t.typname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
            AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND t.typname = ANY(:kinds)
        ORDER BY 3, a.attnum
    """)
    return [tuple(row) for row in connection.execute(query, {"kinds": list(_HOLDS)})]
