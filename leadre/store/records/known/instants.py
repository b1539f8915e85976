"""The instants at which what is known of some users changed, and the rows that count at them, in temporary tables.

LEADRE §4.2.1 (3, 4, 5); docs/adr/0005. What is known of a user at T are the rows with `known_at` <= T whose day, in
UTC, is not more than the window's days before that of T. So it changes when rows become known, and at midnights.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, text

from leadre.domain.behavior import POSITIVE, Action
from leadre.store.records.catalog import AD_CATEGORY, CONTENT_TITLE

MOST_INSTANTS = 1000
"""Instants of one user in one run (ours): of a robot's thousands the oldest are one."""
_WORTH_ANALYZING = 1000

# They stay empty between transactions: a new table for every few users would fill PostgreSQL's own catalog.
_TABLES = """
CREATE TEMPORARY TABLE IF NOT EXISTS summarized (user_id bigint, until timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS happened (
    user_id bigint, domain text, action text, item_id bigint, occurred_at timestamptz, ordinal bigint, id bigint,
    liked boolean, known_at timestamptz, leaves_at timestamptz, category text, spu text, title text
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS changes (user_id bigint, at timestamptz, ad boolean, content boolean)
ON COMMIT DELETE ROWS;
DELETE FROM summarized; DELETE FROM happened; DELETE FROM changes;
"""

_SETTLED_BEFORE = "(summarized_until IS NULL OR summarized_until < :now)"

_WAITS = f"(written > summarized OR leaves_at <= :now) AND {_SETTLED_BEFORE}"

_PAGE = f"""
(SELECT user_id, written FROM user_state WHERE written > summarized AND user_id > :after AND {_SETTLED_BEFORE}
 ORDER BY user_id LIMIT :users)
UNION
(SELECT user_id, written FROM user_state WHERE leaves_at <= :now AND user_id > :after AND {_SETTLED_BEFORE}
 ORDER BY user_id LIMIT :users)
ORDER BY user_id LIMIT :users
"""  # noqa: S608 - our own words

_CLAIM = f"""
INSERT INTO summarized SELECT user_id, summarized_until FROM user_state WHERE user_id = ANY(:user_ids) AND {_WAITS}
ORDER BY user_id FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - our own words
SUMMARIZED = f"""
SELECT user_id, summarized_until AS until FROM user_state WHERE user_id = ANY(:user_ids) AND {_SETTLED_BEFORE}
"""  # noqa: S608 - our own words
"""SQL: the given users whose summaries are older than `now`. The table `summarized`, within a statement (given.py)."""

_SINCE = "coalesce(date_trunc('day', u.until, 'UTC') - :window_days * interval '24 hours', timestamptz '-infinity')"
# An impression is disliked until it is known to have been clicked.
HAPPENED = f"""
SELECT r.*, coalesce({AD_CATEGORY.format(table="a")}, c.category, '') AS category,
       coalesce(a.spu, c.spu, '') AS spu, coalesce(a.name, {CONTENT_TITLE.format(table="c")}, '') AS title
FROM (
    SELECT user_id, domain, action, item_id, occurred_at, ordinal, id, liked, known_at,
           least(ends_at, date_trunc('day', occurred_at, 'UTC') + (:window_days + 1) * interval '24 hours') AS leaves_at
    FROM (
        SELECT u.user_id, b.domain, b.action, b.item_id, b.occurred_at, b.ordinal, b.behavior_id, b.action <> :skip,
               b.known_at, NULL::timestamptz
        FROM summarized u JOIN behaviors b ON b.user_id = u.user_id AND b.occurred_at >= {_SINCE}
        WHERE b.action = ANY(:counted)
      UNION ALL
        SELECT u.user_id, 'ad', :impression, i.ad_id, i.occurred_at, 0, i.impression_id, false, i.known_at, i.outcome_at
        FROM summarized u JOIN impressions i ON i.user_id = u.user_id AND i.occurred_at >= {_SINCE}
        WHERE NOT (i.clicked OR i.converted) OR i.outcome_at > coalesce(u.until, timestamptz '-infinity')
    ) AS r (user_id, domain, action, item_id, occurred_at, ordinal, id, liked, known_at, ends_at)
) AS r
LEFT JOIN ads a ON r.domain = 'ad' AND a.ad_id = r.item_id
LEFT JOIN content_items c ON r.domain = 'content' AND c.content_id = r.item_id
WHERE r.leaves_at > r.known_at
"""  # noqa: S608 - our own words

CHANGES = """
SELECT user_id, at, ad OR place = :most AS ad, content OR place = :most AS content
FROM (
    SELECT user_id, at, bool_or(ad) AS ad, bool_or(content) AS content,
           row_number() OVER (PARTITION BY user_id ORDER BY at DESC) AS place
    FROM (
        SELECT user_id, known_at, liked AND domain = 'ad', liked AND domain = 'content' FROM happened
      UNION ALL
        SELECT user_id, leaves_at, liked AND domain = 'ad', liked AND domain = 'content' FROM happened
      UNION ALL
        SELECT user_id, :now, true, true FROM summarized WHERE {at_now}
    ) AS c (user_id, at, ad, content)
    JOIN summarized u USING (user_id)
    WHERE at <= :now AND (at > u.until OR u.until IS NULL)
    GROUP BY user_id, at
) AS c WHERE place <= :most
"""

DONE = """
UPDATE user_state s SET summarized = s.written, summarized_until = :now, leaves_at = n.at
FROM summarized u
LEFT JOIN (
    SELECT user_id, min(CASE WHEN known_at > :now THEN known_at ELSE leaves_at END) AS at
    FROM happened WHERE leaves_at > :now GROUP BY user_id
) n USING (user_id)
WHERE s.user_id = u.user_id
"""


def waiting(connection: Connection, *, now: datetime, after: int, users: int) -> list[tuple[int, int]]:
    """Return users who wait for a summary, by ascending id, and how many rows were ever written of each.

    Args:
        connection: in a transaction.
        now: nothing later is known.
        after: only ids above it.
        users: at most so many.
    """
    return [tuple(row) for row in connection.execute(text(_PAGE), {"now": now, "after": after, "users": users})]


def claim(connection: Connection, user_ids: Collection[int], *, now: datetime, window_days: int) -> int:
    """Lock users and lay out what counts of them and when it changed, since their last summary and up to `now`.

    Args:
        connection: in a transaction.
        user_ids: left out is whom somebody writes to, and who does not wait any more.
        now: nothing later is known. Whoever is summarized up to here or further is left out.
        window_days: days before that of an instant that count at it.

    Returns:
        How many users are left.
    """
    for statement in _TABLES.split(";")[:-1]:
        connection.execute(text(statement))
    parameters = what_counts(user_ids, now=now, window_days=window_days)

    def lay_out(statement: str, table: str) -> int:
        rows = connection.execute(text(statement), parameters).rowcount
        if rows >= _WORTH_ANALYZING:
            connection.execute(text(f"ANALYZE {table}"))
        return rows

    claimed = lay_out(_CLAIM, "summarized")
    if claimed:
        lay_out(f"INSERT INTO happened {HAPPENED}", "happened (user_id, domain)")
        lay_out(f"INSERT INTO changes {CHANGES.format(at_now='false')}", "changes")
    return claimed


def what_counts(user_ids: Collection[int], *, now: datetime, window_days: int) -> dict[str, object]:
    """Return the parameters of the statements above."""
    return {
        "now": now,
        "user_ids": [int(user_id) for user_id in user_ids],
        "window_days": window_days,
        "most": MOST_INSTANTS,
        "skip": Action.SKIP.value,
        "impression": Action.IMPRESSION.value,
        "counted": sorted({*POSITIVE, Action.SKIP}),
    }


def months(connection: Connection) -> list[datetime]:
    """Return the first instants of the months in which something changed."""
    return list(connection.scalars(text("SELECT DISTINCT date_trunc('month', at, 'UTC') FROM changes")))


def settle(connection: Connection, *, now: datetime) -> None:
    """Note that the claimed users are summarized, and when what is known of them next changes by itself."""
    connection.execute(text(DONE), {"now": now})
