"""The way out: how the owner names ads and users, instead of 64-bit ids. docs/adr/0001.

In memory for LEADRE §4.4.1's latency-sensitive module: one search in an array a list, no question to the database.
By a question to the catalog for commands and error messages.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Column, Connection, select, text

from leadre.domain.identity import outward
from leadre.errors import LeadreError
from leadre.store.records.tables import ads, content_items, users

_KEYS = {"ads": ads.c.ad_id, "users": users.c.user_id, "content_items": content_items.c.content_id}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdNames:
    """The catalog's ads by ascending id: 12 bytes an ad, and the texts of those that are named by text.

    Args:
        ad_ids: int64[n].
        texts: parallel to `ad_ids`; empty where the ad's name is its id.
        cursor: where the next read of changes begins; None before the first.
    """

    ad_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    texts: pa.StringArray = field(default_factory=lambda: pa.array([], pa.string()))
    cursor: int | None = None

    def of(self, ad_ids: Sequence[int]) -> list[int | str | None]:
        """Return each ad's source id; None for an ad that the catalog did not hold when it was read."""
        wanted = np.asarray(ad_ids, np.int64)
        if not len(self.ad_ids):
            return [None] * len(wanted)
        places = np.minimum(np.searchsorted(self.ad_ids, wanted), len(self.ad_ids) - 1)
        known = self.ad_ids[places] == wanted
        return [
            (self.texts[place].as_py() or ad_id) if there else None
            for ad_id, place, there in zip(wanted.tolist(), places.tolist(), known.tolist(), strict=True)
        ]


def read_ad_names(connection: Connection, *, known: AdNames | None = None) -> AdNames:
    """Return the names of all ads; with `known`, an earlier answer, only what changed since is read.

    A deleted ad keeps its name: the id belongs to it for good.

    Raises:
        Unavailable: PostgreSQL does not answer (from `transaction`).
    """
    # First, and so as of a moment before the rows are read: what commits in between is read again.
    cursor = int(connection.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).scalar_one())
    since = 0 if known is None or known.cursor is None else known.cursor
    query = f"""
        COPY (SELECT ad_id, CASE WHEN source_id = ad_id::text THEN '' ELSE source_id END
              FROM ads WHERE changed_in >= {since:d} ORDER BY ad_id) TO STDOUT (FORMAT csv, FORCE_QUOTE *)
    """  # noqa: S608 - our own words and a number
    received = BytesIO()
    with closing(connection.connection.cursor()) as database_cursor:
        database_cursor.copy_expert(query, received)
    if not received.tell():
        before = known or AdNames()
        return AdNames(ad_ids=before.ad_ids, texts=before.texts, cursor=cursor)
    received.seek(0)
    read = csv.read_csv(
        received,
        read_options=csv.ReadOptions(column_names=("ad_id", "name")),
        convert_options=csv.ConvertOptions(column_types={"ad_id": pa.int64(), "name": pa.string()}),
    ).combine_chunks()
    ad_ids, texts = read["ad_id"].to_numpy(), read["name"].combine_chunks()
    if known is not None and len(known.ad_ids):
        kept = np.flatnonzero(~np.isin(known.ad_ids, ad_ids))
        ad_ids = np.concatenate([known.ad_ids[kept], ad_ids])
        texts = pa.concat_arrays([known.texts.take(pa.array(kept)), texts])
        order = np.argsort(ad_ids)
        ad_ids, texts = ad_ids[order], texts.take(pa.array(order))
    return AdNames(ad_ids=ad_ids, texts=texts, cursor=cursor)


def ad_source_ids(connection: Connection, ad_ids: Collection[int]) -> dict[int, int | str]:
    """Return how the owner names some ads; ads that the catalog does not hold are left out."""
    return _named(connection, ads.c.ad_id, ad_ids)


def user_source_ids(connection: Connection, user_ids: Collection[int]) -> dict[int, int | str]:
    """Return how the owner names some users; users that the catalog does not hold are left out."""
    return _named(connection, users.c.user_id, user_ids)


def holders(connection: Connection, ids: Collection[int]) -> dict[str, dict[int, int | str]]:
    """Return who has these ids: by table of the catalog ("ads", "users", "content_items"), from id to source id."""
    return {table: _named(connection, key, ids) for table, key in _KEYS.items()}


def in_owners_words(connection: Connection, error: LeadreError) -> str:
    """Return an error's message with the owner's ids in place of the 64-bit ones it is `about`."""
    said = str(error)
    ad_ids, user_ids = ([it for it in ids if str(it) in said] for ids in (error.ad_ids, error.user_ids))
    known = {**user_source_ids(connection, user_ids), **ad_source_ids(connection, ad_ids)}
    names = {str(it): repr(name) for it, name in known.items()}
    return re.sub("[0-9]+", lambda number: names.get(number[0], number[0]), said)


def _named(connection: Connection, key: Column[int], ids: Collection[int]) -> dict[int, int | str]:
    query = select(key, key.table.c.source_id).where(key.in_([int(it) for it in ids]))
    return {it: outward(source_id) for it, source_id in connection.execute(query)}


def example_ids(connection: Connection) -> tuple[int | str | None, int | str | None]:
    """Return how the owner names a user, one whose list is new if there are any, and an ad; None where there is none.

    For commands that a reader may try: looks at a thousand lists of the last week, not at all.
    """
    user = connection.scalar(
        text("""
            SELECT source_id FROM (
                SELECT user_id, event_at FROM retrieval_log WHERE event_at > now() - interval '7 days' LIMIT 1000
            ) AS newest JOIN users USING (user_id) ORDER BY newest.event_at DESC LIMIT 1
        """)
    )
    if user is None:
        user = connection.scalar(select(users.c.source_id).limit(1))
    ad = connection.scalar(select(ads.c.source_id).limit(1))
    return None if user is None else outward(user), None if ad is None else outward(ad)
