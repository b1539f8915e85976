"""The newest rows of some entities, of several views, to the online store: what a list is about to be made of.

LEADRE §4.4.1. What a materialization does for all entities (shards.py), here in one round trip to PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from leadre.store.features.materialization.shards import SAMPLED, read_back
from leadre.store.features.materialization.view import View, copied
from leadre.store.features.online_rows import Row, set_rows
from leadre.store.records.prepared import Prepared

_AT_ONCE = 500
"""Entities whose rows are in memory at once (ours)."""


class NewestRows:
    """Copies newest rows of views that share their entity. For connections that no other instance uses.

    Args:
        views: whose rows.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        of_each = [
            f"SELECT {place}, newest FROM ({view.newest_of(':ids', ':until')}) AS rows"  # noqa: S608 - our own words
            for place, view in enumerate(views)
        ]
        self._read = Prepared(
            name="leadre_newest_rows",
            statement=" UNION ALL ".join(of_each),
            types={"ids": "bigint[]", "until": "timestamptz"},
        )

    def copy(self, connection: Connection, client: Any, ids: Collection[int], *, until: datetime) -> None:
        """Copy the newest rows of some entities with event times up to an instant; who has none stays as it is.

        Args:
            connection: any.
            client: the online store's Redis.
            ids: of the entities.
            until: later rows wait.

        Raises:
            FeatureRowMismatch, InvalidInput, redis.RedisError: as `shards.copy_online`.
        """
        asked = list(ids)
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            statement = self._read.sql(connection, rows=len(some))
            found: list[list[bytes]] = [[] for _ in self._views]
            for place, record in connection.exec_driver_sql(statement, {"ids": some, "until": until}):
                found[place].append(copied(bytes(record)))
            self._set(client, [list(view.online(rows)) for view, rows in zip(self._views, found, strict=True)])

    def _set(self, client: Any, rows: Sequence[Sequence[Row]]) -> None:
        ways = {(view.in_place, view.ttl_s) for view in self._views}
        for in_place, ttl_s in sorted(ways):
            alike = [
                of
                for view, of in zip(self._views, rows, strict=True)
                if (view.in_place, view.ttl_s) == (in_place, ttl_s)
            ]
            set_rows(client, list(chain.from_iterable(alike)), ttl_s=ttl_s, replace_equal=in_place)
        read_back(
            client,
            [(view, of[:: -(-len(of) // SAMPLED)] if of else ()) for view, of in zip(self._views, rows, strict=True)],
        )
