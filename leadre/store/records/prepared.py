"""Statements that PostgreSQL plans once a connection: planning one of many parts costs ten times what running it does.

LEADRE §4.4.1: a list is made within milliseconds of a behavior. A plan for any values is good for few rows, so
statements over many are planned for theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

FEW = 16
"""Users up to whom the plan made for any of them is used (ours): at 32 one made for them is as fast, at 256 6 times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A statement with named parameters.

    Args:
        name: of the prepared statement; nobody else's.
        statement: SQL with `:parameter`; every parameter is in `types`.
        types: PostgreSQL's type of each parameter.
    """

    name: str
    statement: str
    types: Mapping[str, str]

    def sql(self, connection: Connection, *, rows: int) -> str:
        """Return SQL for `exec_driver_sql` that runs the statement on this connection, with `%(parameter)s`.

        Args:
            connection: where it is prepared now, if it was not before.
            rows: how many the statement is about; up to `FEW` the plan for any values is used.
        """
        if rows > FEW:
            return self._with({name: f"CAST(%({name})s AS {kind})" for name, kind in self.types.items()})
        known = connection.info.setdefault("prepared", set())
        if self.name not in known:
            body = self._with({name: f"${place}" for place, name in enumerate(self.types, 1)})
            connection.exec_driver_sql(f"PREPARE {self.name} ({', '.join(self.types.values())}) AS {body}")
            known.add(self.name)
        return f"EXECUTE {self.name} ({', '.join(f'%({name})s' for name in self.types)})"

    def _with(self, words: Mapping[str, str]) -> str:
        parameter = rf"(?<![:\w]):({'|'.join(words)})\b"
        return re.sub(parameter, lambda found: words[found[1]], self.statement.replace("%", "%%"))
