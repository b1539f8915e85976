"""Summaries: what prompts need of each user, from behaviors, by set-based SQL. LEADRE §4.2.1 (3, 4, 5), §5.4.

`event_at` of a row is the time of the newest behavior in it, not the time of writing: a point-in-time join then finds
what was known at an instant, and a later behavior is always later than the row it must replace.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from leadre.domain.behavior import POSITIVE, Action
from leadre.store.records.catalog import AD_CATEGORY, CONTENT_TITLE

ARPU_GROUPS = 25
"""§5.4: users are put into 25 groups by ARPU."""

_SUMMARIES = """
WITH counted AS (
    SELECT b.user_id, coalesce({ad_category}, c.category, '') AS category, b.action <> :skip AS liked, b.occurred_at
    FROM behaviors b
    LEFT JOIN ads a ON b.domain = 'ad' AND a.ad_id = b.item_id
    LEFT JOIN content_items c ON b.domain = 'content' AND c.content_id = b.item_id
    WHERE b.occurred_at > :since AND b.occurred_at <= :now AND b.action = ANY(:counted) AND {these_b}
  UNION ALL
    SELECT i.user_id, coalesce({ad_category}, ''), false, i.occurred_at
    FROM impressions i LEFT JOIN ads a USING (ad_id)
    WHERE i.occurred_at > :since AND i.occurred_at <= :now AND NOT i.clicked AND NOT i.converted AND {these_i}
), tallied AS (
    SELECT user_id, category, liked, count(*) AS times, max(occurred_at) AS newest
    FROM counted GROUP BY user_id, category, liked
), placed AS (
    SELECT *, row_number() OVER (
        PARTITION BY user_id, liked, category = '' ORDER BY times DESC, newest DESC, category) AS place
    FROM tallied
)
INSERT INTO interest_summaries AS t (user_id, event_at, categories, counts, disliked_categories, disliked_counts)
SELECT user_id, max(newest),
       coalesce(array_agg(category ORDER BY place) FILTER (WHERE liked AND kept), '{{}}'),
       coalesce(array_agg(times ORDER BY place) FILTER (WHERE liked AND kept), '{{}}'),
       coalesce(array_agg(category ORDER BY place) FILTER (WHERE NOT liked AND kept), '{{}}'),
       coalesce(array_agg(times ORDER BY place) FILTER (WHERE NOT liked AND kept), '{{}}')
FROM (SELECT *, category <> '' AND place <= :top AS kept FROM placed) AS chosen GROUP BY user_id ORDER BY user_id
ON CONFLICT (user_id, event_at) DO UPDATE
SET categories = excluded.categories, counts = excluded.counts, disliked_categories = excluded.disliked_categories,
    disliked_counts = excluded.disliked_counts, created_at = now()
WHERE (t.categories, t.counts, t.disliked_categories, t.disliked_counts) IS DISTINCT FROM
      (excluded.categories, excluded.counts, excluded.disliked_categories, excluded.disliked_counts)
"""

_SEQUENCES = """
WITH placed AS (
    SELECT b.*, row_number() OVER (
        PARTITION BY user_id, domain ORDER BY occurred_at DESC, ordinal DESC, behavior_id DESC) AS place
    FROM behaviors b
    WHERE b.occurred_at > :since AND b.occurred_at <= :now AND b.action = ANY(:positive) AND {these_b}
)
INSERT INTO behavior_sequences AS t (user_id, domain, event_at, item_ids, actions, titles, occurred_at_s, ordinals)
SELECT p.user_id, p.domain, max(p.occurred_at), array_agg(p.item_id ORDER BY p.place DESC),
       array_agg(p.action ORDER BY p.place DESC),
       array_agg(coalesce(a.name, {content_title}, '') ORDER BY p.place DESC),
       array_agg(extract(epoch FROM p.occurred_at)::float8 ORDER BY p.place DESC),
       array_agg(p.ordinal ORDER BY p.place DESC)
FROM placed p
LEFT JOIN ads a ON p.domain = 'ad' AND a.ad_id = p.item_id
LEFT JOIN content_items c ON p.domain = 'content' AND c.content_id = p.item_id
WHERE p.place <= :longest
GROUP BY p.user_id, p.domain ORDER BY p.user_id, p.domain
ON CONFLICT (user_id, domain, event_at) DO UPDATE
SET item_ids = excluded.item_ids, actions = excluded.actions, titles = excluded.titles,
    occurred_at_s = excluded.occurred_at_s, ordinals = excluded.ordinals, created_at = now()
WHERE (t.item_ids, t.actions, t.titles, t.occurred_at_s, t.ordinals) IS DISTINCT FROM
      (excluded.item_ids, excluded.actions, excluded.titles, excluded.occurred_at_s, excluded.ordinals)
"""

# rank() and not ntile(): users of equal ARPU belong to one group.
_ARPU_GROUPS = """
UPDATE users SET arpu_group = grouped.arpu_group
FROM (
    SELECT user_id, (rank() OVER (ORDER BY arpu) - 1) * :groups / count(*) OVER () AS arpu_group FROM users
) AS grouped
WHERE users.user_id = grouped.user_id AND users.arpu_group IS DISTINCT FROM grouped.arpu_group
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryCounts:
    """How many rows a run inserted or changed, by table."""

    interest_summaries: int
    behavior_sequences: int
    users: int


def write_summaries(
    connection: Connection,
    *,
    now: datetime,
    window_days: float = 90,
    top: int = 20,
    longest: int = 512,
    user_ids: Collection[int] | None = None,
) -> SummaryCounts:
    """Write interest summaries, behavior sequences and ARPU groups. Running it again changes nothing.

    Liked are positive behaviors of both domains by category (an ad's second level, or its first if it has no second);
    disliked are skips, and impressions without click and conversion. A user without behavior in the window gets no row.

    Args:
        connection: in a transaction.
        now: behaviors after this do not exist yet.
        window_days: how far back behaviors count.
        top: categories kept in each direction, most frequent first (ours).
        longest: behaviors kept in each domain, the newest (ours; a robot's thousands fit no prompt).
        user_ids: only these users, and no regrouping by ARPU: that takes all of them.
    """
    parameters: dict[str, object] = {
        "now": now,
        "since": now - timedelta(days=window_days),
        "skip": Action.SKIP.value,
        "positive": sorted(POSITIVE),
        "counted": sorted({*POSITIVE, Action.SKIP}),
        "top": top,
        "longest": longest,
    }
    these = "{}.user_id = ANY(:user_ids)" if user_ids is not None else "true"
    if user_ids is not None:
        parameters["user_ids"] = [int(user_id) for user_id in user_ids]
    parts = {
        "ad_category": AD_CATEGORY.format(table="a"),
        "content_title": CONTENT_TITLE.format(table="c"),
        "these_b": these.format("b"),
        "these_i": these.format("i"),
    }
    summaries = connection.execute(text(_SUMMARIES.format(**parts)), parameters).rowcount
    sequences = connection.execute(text(_SEQUENCES.format(**parts)), parameters).rowcount
    grouped = 0
    if user_ids is None:
        grouped = connection.execute(text(_ARPU_GROUPS), {"groups": ARPU_GROUPS}).rowcount
    return SummaryCounts(interest_summaries=summaries, behavior_sequences=sequences, users=grouped)
