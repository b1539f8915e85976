"""Consumption of ads that were shown: which of them LEADRE retrieved, and which of those nobody else would have.

LEADRE §5.3: consumption is "the proportion of exposed ads exclusively retrieved by a specific branch relative to all
exposed ads". From impressions, joined with the list that the user had at that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from leadre.domain.behavior import POSITIVE

# A day's popular ads are those of the week before it: what the Mixer's branch `popular` gave, to a few minutes.
_SHOWN = text(f"""
    WITH shown AS (
        SELECT impression_id, user_id, ad_id, occurred_at, CAST(occurred_at AT TIME ZONE 'UTC' AS date) AS day
        FROM impressions WHERE occurred_at >= :since AND occurred_at < :until
    ), popular AS (
        SELECT day, item_id AS ad_id FROM (SELECT DISTINCT day FROM shown) AS days CROSS JOIN LATERAL (
            SELECT item_id FROM behaviors
            WHERE domain = 'ad' AND action IN ({", ".join(f"'{action}'" for action in sorted(POSITIVE))})
                AND occurred_at > (day::timestamp AT TIME ZONE 'UTC') - :week
                AND occurred_at <= day::timestamp AT TIME ZONE 'UTC'
            GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT :popular
        ) AS ranked
    )
    SELECT count(*), count(*) FILTER (WHERE in_list), count(*) FILTER (WHERE is_popular),
        count(*) FILTER (WHERE in_list AND NOT is_popular), count(*) FILTER (WHERE is_popular AND NOT in_list)
    FROM (
        SELECT coalesce(shown.ad_id = ANY (listed.retrieved_ad_ids), false) AS in_list,
            popular.ad_id IS NOT NULL AS is_popular
        FROM shown
        LEFT JOIN popular USING (day, ad_id)
        LEFT JOIN LATERAL (
            SELECT retrieved_ad_ids FROM retrieval_log
            WHERE retrieval_log.user_id = shown.user_id AND event_at <= shown.occurred_at
                AND event_at > shown.occurred_at - :ttl
            ORDER BY event_at DESC LIMIT 1
        ) AS listed ON true
    ) AS judged
""")  # noqa: S608 - our own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What became of lists.

    Args:
        shown: impressions.
        in_list: of them, those whose ad was in the user's list then.
        popular: those whose ad was among the popular ones of that day.
        only_list: in the list, and not popular.
        only_popular: popular, and not in the list.
    """

    shown: int
    in_list: int
    popular: int
    only_list: int
    only_popular: int

    @property
    def leadre(self) -> float:
        """LEADRE's consumption ratio: what it alone retrieved of all that was shown; 0 where nothing was."""
        return self.only_list / self.shown if self.shown else 0.0

    @property
    def popularity(self) -> float:
        """The popularity branch's."""
        return self.only_popular / self.shown if self.shown else 0.0


def read_consumption(
    connection: Connection, *, since: datetime, until: datetime, list_ttl: timedelta, popular: int = 100
) -> Consumption:
    """Return what became of the lists in a period, by impressions.

    Args:
        connection: any.
        since: impressions from then on count.
        until: up to, and not including.
        list_ttl: age at which a list counts as absent.
        popular: how many ads the popularity branch gives at most (ours).
    """
    parameters = {"since": since, "until": until, "ttl": list_ttl, "week": timedelta(days=7), "popular": popular}
    row = connection.execute(_SHOWN, parameters).one()
    return Consumption(**dict(zip(Consumption.__dataclass_fields__, row, strict=True)))
