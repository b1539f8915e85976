"""What was known at every instant, as rows: interest summaries and behavior sequences. LEADRE §4.2.1 (3, 4, 5).

A row is appended where its content differs from that of the row before it; no row is ever changed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

_KINDS = {
    "categories": ("name", "liked", "category"),
    "counts": ("times", "liked", "category"),
    "disliked_categories": ("name", "NOT liked", "category"),
    "disliked_counts": ("times", "NOT liked", "category"),
    "spus": ("name", "liked", "spu"),
    "spu_counts": ("times", "liked", "spu"),
    "disliked_spus": ("name", "NOT liked", "spu"),
    "disliked_spu_counts": ("times", "NOT liked", "spu"),
}
_IN_ORDER = {
    "item_ids": "h.item_id",
    "actions": "h.action",
    "titles": "h.title",
    "occurred_at_s": "extract(epoch FROM h.occurred_at)::float8",
    "ordinals": "h.ordinal",
}

# Rows that come in, or leave, between the same two instants count as one: so a thousand instants cost no thousandfold.
_SPANS = """
firsts AS (
    SELECT user_id, min(at) AS first FROM changes GROUP BY user_id
), spans AS (
    SELECT h.*, CASE WHEN h.known_at <= f.first THEN timestamptz '-infinity' ELSE h.known_at END AS counts_from,
           CASE WHEN h.leaves_at > :now THEN timestamptz 'infinity' ELSE h.leaves_at END AS counts_until
    FROM happened h JOIN firsts f USING (user_id)
)
"""

_APPEND = """
INSERT INTO {table} ({key}, event_at, newest_at, {columns})
SELECT {key}, at, newest_at, {columns}
FROM (
    SELECT *, lag(content) OVER same AS before, row_number() OVER same AS place
    FROM (SELECT *, ROW (newest_at, {columns}) AS content FROM content) AS c
    WINDOW same AS (PARTITION BY {key} ORDER BY at)
) AS c
JOIN summarized u USING (user_id)
LEFT JOIN LATERAL (
    SELECT ROW (newest_at, {columns}) AS content FROM {table} t
    WHERE {same} AND c.place = 1 AND u.until IS NOT NULL
    ORDER BY t.event_at DESC LIMIT 1
) AS stored ON true
WHERE c.content IS DISTINCT FROM CASE WHEN c.place > 1 THEN c.before ELSE coalesce(stored.content, {nothing}) END
ORDER BY {key}, at
"""

SUMMARIES = (
    "WITH "  # noqa: S608 - our own words
    + _SPANS
    + """
, tallied AS (
    SELECT s.user_id, s.liked, n.kind, n.name, s.counts_from, s.counts_until, count(*) AS times,
           max(s.occurred_at) AS newest
    FROM spans s CROSS JOIN LATERAL (VALUES ('category', s.category), ('spu', s.spu)) AS n (kind, name)
    WHERE n.kind = 'category' OR n.name <> ''
    GROUP BY 1, 2, 3, 4, 5, 6
), known AS (
    SELECT user_id, c.at, t.liked, t.kind, t.name, sum(t.times)::bigint AS times, max(t.newest) AS newest
    FROM changes c JOIN tallied t USING (user_id) WHERE t.counts_from <= c.at AND t.counts_until > c.at
    GROUP BY user_id, c.at, t.liked, t.kind, t.name
), content AS (
    SELECT user_id, at, max(k.newest) AS newest_at, """
    + ", ".join(
        f'coalesce((array_agg({what} ORDER BY times DESC, newest DESC, name COLLATE "C") '
        f"FILTER (WHERE {liked} AND kind = '{kind}' AND name <> ''))[1 : :top], '{{}}') AS {column}"
        for column, (what, liked, kind) in _KINDS.items()
    )
    + """
    FROM changes LEFT JOIN known k USING (user_id, at) GROUP BY user_id, at
)
"""
    + _APPEND.format(
        table="interest_summaries",
        key="user_id",
        same="t.user_id = c.user_id",
        columns=", ".join(_KINDS),
        nothing=f"ROW (NULL::timestamptz, {', '.join(['ARRAY[]::text[], ARRAY[]::bigint[]'] * 4)})",
    )
)

SEQUENCES = (
    "WITH "  # noqa: S608 - our own words
    + _SPANS
    + """
, newest AS (
    SELECT *, row_number() OVER (
        PARTITION BY user_id, domain, counts_from ORDER BY occurred_at DESC, ordinal DESC, id DESC) AS place
    FROM spans WHERE liked
), instants AS (
    SELECT user_id, 'ad' AS domain, at FROM changes WHERE ad
    UNION ALL SELECT user_id, 'content', at FROM changes WHERE content
), content AS (
    SELECT i.user_id, i.domain, i.at, max(h.occurred_at) AS newest_at, """
    + ", ".join(
        f"coalesce((array_agg({what} ORDER BY h.occurred_at, h.ordinal, h.id) FILTER (WHERE h.id IS NOT NULL)) "
        f"[greatest(1, count(h.id) - :longest + 1):], '{{}}') AS {column}"
        for column, what in _IN_ORDER.items()
    )
    + """
    FROM instants i
    LEFT JOIN newest h ON h.user_id = i.user_id AND h.domain = i.domain AND h.place <= :longest
        AND h.counts_from <= i.at AND h.counts_until > i.at
    GROUP BY i.user_id, i.domain, i.at
)
"""
    + _APPEND.format(
        table="behavior_sequences",
        key="user_id, domain",
        same="t.user_id = c.user_id AND t.domain = c.domain",
        columns=", ".join(_IN_ORDER),
        nothing="ROW (NULL::timestamptz, ARRAY[]::bigint[], ARRAY[]::text[], ARRAY[]::text[], ARRAY[]::float8[], "
        "ARRAY[]::bigint[])",
    )
)


def append_summaries(connection: Connection, *, now: datetime, top: int) -> int:
    """Append the claimed users' interest summaries: names most frequent first, then newest first, then by name.

    Args:
        connection: the one that claimed them.
        now: as there.
        top: names kept of each kind.

    Returns:
        How many rows.
    """
    return connection.execute(text(SUMMARIES), {"now": now, "top": top}).rowcount


def append_sequences(connection: Connection, *, now: datetime, longest: int) -> int:
    """Append the claimed users' sequences of positive behaviors, oldest first, the newest `longest`; see above."""
    return connection.execute(text(SEQUENCES), {"now": now, "longest": longest}).rowcount
