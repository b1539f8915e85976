"""Statements that are planned once a connection: the same rows by either plan, and what SQL holds stays as it is."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine, text

from leadre.store.records.database import connect, session
from leadre.store.records.prepared import FEW, Prepared

STATEMENT = Prepared(
    name="test_doubled",
    statement="SELECT n * 2, '12:30 % :no'::text FROM unnest(:ids) AS asked (n) WHERE n < :below ORDER BY n",
    types={"ids": "bigint[]", "below": "bigint"},
)


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_few_and_many_rows_come_alike_and_words_between_quotes_of_other_names_stay(
    connection: Connection, rows: int
) -> None:
    for _ in range(3):
        parameters = {"ids": list(range(rows)), "below": 5}
        found = connection.exec_driver_sql(STATEMENT.sql(connection, rows=rows), parameters).all()
        assert found == [(2 * n, "12:30 % :no") for n in range(min(rows, 5))]


def test_a_statement_is_prepared_once_a_connection_and_anew_on_the_next(database_url: str) -> None:
    statement = Prepared(name="test_one", statement="SELECT :n", types={"n": "int"})

    def prepared(engine: Engine) -> list[str]:
        with session(engine) as connection:
            assert connection.exec_driver_sql(statement.sql(connection, rows=1), {"n": 7}).scalar() == 7
            return list(connection.scalars(text("SELECT name FROM pg_prepared_statements")))

    engine = connect(database_url)
    assert prepared(engine) == prepared(engine) == ["test_one"]
    engine.dispose()  # as after a lost server: other connections
    assert prepared(engine) == ["test_one"]
    engine.dispose()
