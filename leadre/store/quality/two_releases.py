"""Lists that one user got from two releases, of a sample of users. LEADRE §4.4.1: releases follow each other daily."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

_PAIRS = text("""
SELECT after.retrieved_ad_ids AS ours, before.retrieved_ad_ids AS theirs
FROM (SELECT DISTINCT ON (user_id) user_id, retrieved_ad_ids FROM (
        SELECT user_id, event_at, retrieved_ad_ids FROM retrieval_log
        WHERE release = :release AND event_at >= :since LIMIT :size) AS looked_at
      ORDER BY user_id, event_at DESC) AS after
CROSS JOIN LATERAL (
    SELECT retrieved_ad_ids FROM retrieval_log
    WHERE user_id = after.user_id AND release = :against ORDER BY event_at DESC LIMIT 1) AS before
""")


def pairs_of_lists(
    connection: Connection, release: str, against: str, *, since: datetime, size: int
) -> list[tuple[list[int], list[int]]]:
    """Return the ads that users got from two releases, best first: the newest list of each, one pair a user.

    Args:
        connection: in a transaction.
        release: the later one.
        against: the earlier one.
        since: lists of `release` from before are not looked at.
        size: lists of `release` to look at, at most; users without a list of `against` are left out.
    """
    asked = {"release": release, "against": against, "since": since, "size": size}
    return [(list(row.ours), list(row.theirs)) for row in connection.execute(_PAIRS, asked)]
