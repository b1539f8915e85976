"""The way out: how the owner names ads and users, instead of 64-bit ids. docs/adr/0001.

By a question to the catalog, for commands and error messages. Servers have the ads' names in memory:
`leadre.serving.ad_catalog` (LEADRE §4.4.1).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlalchemy import Column, Connection, select, text

from leadre.domain.identity import outward
from leadre.errors import LeadreError
from leadre.store.records.tables import ads, content_items, users

_KEYS = {"ads": ads.c.ad_id, "users": users.c.user_id, "content_items": content_items.c.content_id}


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
