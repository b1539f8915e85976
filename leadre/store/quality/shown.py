"""Impressions as a ranker's training rows see them: with the list and the index that counted when each was made.

LEADRE §5.3. Of samples of users: LATERAL with LIMIT looks the rows of the named users and ads up, and scans nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

PER_USER = 50
"""Impressions of a user and window at most (ours): one user cannot fill a sample."""
_FACTS = {
    "sid": "sid",
    "embedding": "embedding",
    "indexed_first_category": "first_category",
    "indexed_second_category": "second_category",
    "indexed_advertiser_id": "advertiser_id",
    "ad_index_version": "index_version",
}
"""The columns of `leadre.derivation.item_match` that say of an ad what its index does, and where they stand."""


def shown(
    connection: Connection, user_ids: NDArray[np.int64], *, after: datetime, until: datetime, ttl: timedelta
) -> dict[str, list[Any]]:
    """Return the users' impressions after one time and up to another, each with the list that counted then.

    Args:
        connection: any.
        user_ids: whose; the newest `PER_USER` of each.
        after: impressions at it are left out.
        until: those at it are not.
        ttl: older lists do not count.

    Returns:
        The columns of `leadre.derivation.item_match` but for those of `target_facts`: `ad_id`, `request_time_s`, and
        `retrieved_list`, one object for the rows of one list, None without one.
    """
    statement = text(
        """
        SELECT u.user_id, i.ad_id, extract(epoch FROM i.occurred_at)::float8 AS at_s, l.event_at, l.release
        FROM unnest(CAST(:ids AS bigint[])) AS u (user_id) CROSS JOIN LATERAL (
            SELECT * FROM impressions m WHERE m.user_id = u.user_id AND m.occurred_at > :after
            AND m.occurred_at <= :until ORDER BY m.occurred_at DESC LIMIT :most
        ) i LEFT JOIN LATERAL (
            SELECT r.event_at, r.release FROM retrieval_log r
            WHERE r.user_id = u.user_id AND r.event_at <= i.occurred_at AND r.event_at >= i.occurred_at - :ttl
            AND r.event_at > :oldest AND r.event_at <= :until ORDER BY r.event_at DESC, r.created_at DESC LIMIT 1
        ) l ON true
        """
    )
    asked = {"ids": user_ids.tolist(), "after": after, "until": until, "most": PER_USER}
    rows = connection.execute(statement, {**asked, "ttl": ttl, "oldest": after - ttl}).all()
    lists = list({(row.user_id, row.event_at, row.release) for row in rows if row.event_at is not None})
    users, times, releases = zip(*lists, strict=True) if lists else ((), (), ())
    records = connection.execute(
        text(
            """
            SELECT k.user_id, k.event_at, k.release, l.record
            FROM unnest(CAST(:users AS bigint[]), CAST(:times AS timestamptz[]), CAST(:releases AS text[]))
            AS k (user_id, event_at, release) CROSS JOIN LATERAL (
                SELECT record FROM retrieval_log r
                WHERE r.user_id = k.user_id AND r.event_at = k.event_at AND r.release = k.release LIMIT 1
            ) l
            """
        ),
        {"users": list(users), "times": list(times), "releases": list(releases)},
    )
    record_of = {(row.user_id, row.event_at, row.release): bytes(row.record) for row in records}
    return {
        "ad_id": [row.ad_id for row in rows],
        "request_time_s": [row.at_s for row in rows],
        "retrieved_list": [record_of.get((row.user_id, row.event_at, row.release)) for row in rows],
    }


def target_facts(connection: Connection, ad_ids: Sequence[int], times_s: Sequence[float]) -> dict[str, list[Any]]:
    """Return what the index that was live at each time says of an ad, by the names of `leadre.derivation.item_match`.

    Args:
        connection: any.
        ad_ids: n.
        times_s: n Unix times.

    Returns:
        n values a column; None where no index was live, or where it did not know the ad yet.
    """
    promotions = connection.execute(
        text(
            "SELECT extract(epoch FROM promoted_at)::float8 AS at_s, index_version FROM releases "
            "WHERE promoted_at IS NOT NULL ORDER BY promoted_at"
        )
    ).all()
    versions = [None, *(row.index_version for row in promotions)]
    live = np.searchsorted([row.at_s for row in promotions], times_s, side="right").tolist()
    keys = [(versions[number], ad_id) for number, ad_id in zip(live, ad_ids, strict=True)]
    wanted = list({key for key in keys if key[0] is not None})
    names, ids = zip(*wanted, strict=True) if wanted else ((), ())
    rows = connection.execute(
        text(
            """
            SELECT s.*, extract(epoch FROM s.event_at)::float8 AS at_s
            FROM unnest(CAST(:names AS text[]), CAST(:ids AS bigint[])) AS w (index_version, ad_id) CROSS JOIN LATERAL (
                SELECT * FROM semantic_ids i WHERE i.index_version = w.index_version AND i.ad_id = w.ad_id LIMIT 1
            ) s
            """
        ),
        {"names": list(names), "ids": list(ids)},
    ).mappings()
    facts = {(row["index_version"], row["ad_id"]): row for row in rows}
    known = [facts.get(key) for key in keys]
    of_row = [None if row is None or row["at_s"] > at_s else row for row, at_s in zip(known, times_s, strict=True)]
    return {name: [None if row is None else row[column] for row in of_row] for name, column in _FACTS.items()}
