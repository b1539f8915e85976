"""Behaviors and impressions on their way in: their ids, and the checks of bulk ones. LEADRE §3.1, §4.2.1.

A row's id is a hash of the row, so a repeated write changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from leadre.domain.behavior import Behavior, Impression
from leadre.errors import InvalidInput
from leadre.store.records.bulk import ROW, Staged, staged
from leadre.store.records.known.writes import BEHAVIOR, IMPRESSION
from leadre.store.records.tables import behaviors, impressions


@contextmanager
def staged_behaviors(
    connection: Connection, rows: Iterable[Behavior], *, unknown: Literal["accept", "refuse"] = "accept"
) -> Iterator[Staged]:
    """Check behaviors and let them wait in a temporary table, for `write_import`.

    Args:
        connection: in a transaction.
        rows: any number, in any order.
        unknown: whether a behavior of a user, ad or content item that the catalog does not hold is an error.

    Raises:
        InvalidInput: a bad value, or an unknown user or item; with its row.
    """
    with staged(connection, behaviors, tuple(BEHAVIOR), (behavior_row(row) for row in rows)) as source:
        if unknown == "refuse":
            _refuse_unknown(connection, source, "user_id", "users", "user_id")
            _refuse_unknown(connection, source, "item_id", "ads", "ad_id", only="s.domain = 'ad'")
            _refuse_unknown(connection, source, "item_id", "content_items", "content_id", only="s.domain = 'content'")
        yield source


@contextmanager
def staged_impressions(
    connection: Connection, rows: Iterable[Impression], *, unknown: Literal["accept", "refuse"] = "accept"
) -> Iterator[Staged]:
    """Check impressions and let them wait; see `staged_behaviors`."""
    with staged(connection, impressions, IMPRESSION, (impression_row(row) for row in rows)) as source:
        if unknown == "refuse":
            _refuse_unknown(connection, source, "user_id", "users", "user_id")
            _refuse_unknown(connection, source, "ad_id", "ads", "ad_id")
        yield source


def behavior_row(row: Behavior) -> tuple[object, ...]:
    """Return the values of `BEHAVIOR`."""
    values = (row.user_id, row.domain.value, row.action.value, row.item_id, row.occurred_at, row.ordinal)
    words = (row.domain.value, str(row.item_id), row.action.value, time_word(row.occurred_at), str(row.ordinal))
    return (event_id(str(row.user_id), *words), *values)


def impression_row(row: Impression) -> tuple[object, ...]:
    """Return the values of `IMPRESSION`."""
    values = (row.user_id, row.ad_id, row.occurred_at, row.ecpm, row.clicked, row.converted, row.simulated)
    return (event_id(str(row.user_id), str(row.ad_id), time_word(row.occurred_at)), *values)


def time_word(at: datetime) -> str:
    """Return an aware time as `event_id` takes it: the same word for one instant, whatever its offset."""
    return repr(at.timestamp())


def event_id(*words: str) -> int:
    """Return the id of a behavior (user, domain, item, action, time, ordinal) or impression (user, ad, time).

    63 bits of BLAKE2b; among a billion rows some two collide by chance (5 %), which loses one row.
    """
    return int.from_bytes(hashlib.blake2b("|".join(words).encode(), digest_size=8).digest(), "big") >> 1


def _refuse_unknown(
    connection: Connection, source: Staged, column: str, catalog: str, key: str, *, only: str = "true"
) -> None:
    query = f"""
        SELECT s.{ROW}, s.{column} FROM {source.name} s
        WHERE {only} AND NOT EXISTS (SELECT FROM {catalog} c WHERE c.{key} = s.{column}) ORDER BY 1 LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    if found := connection.execute(text(query)).one_or_none():
        row, value = found
        raise InvalidInput(f"{value} is not in {catalog}; add it there, or leave the row out", row=row, column=column)
