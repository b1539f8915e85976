"""What the live system's ranking chose for a user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from leadre.domain.behavior import Impression
from leadre.store.records.events import upsert_impressions
from leadre.store.records.impressions import best_shown

NOW = datetime(2025, 3, 4, tzinfo=UTC)


def shown(user_id: int, ad_id: int, ecpm: float, *, minute: int) -> Impression:
    return Impression(
        user_id=user_id,
        ad_id=ad_id,
        occurred_at=NOW + timedelta(minutes=minute),
        ecpm=ecpm,
        clicked=False,
        converted=False,
        simulated=True,
    )


def test_the_best_shown_ads_are_different_ones_of_the_highest_ecpm_since_each_users_instant(
    connection: Connection,
) -> None:
    upsert_impressions(
        connection,
        [
            shown(1, 10, 9.0, minute=-1),  # too early
            shown(1, 11, 2.0, minute=0),
            shown(1, 12, 5.0, minute=1),
            shown(1, 13, 1.0, minute=2),
            shown(1, 11, 7.0, minute=3),  # again, and worth more
            shown(2, 10, 4.0, minute=4),
            shown(3, 10, 4.0, minute=4),  # not asked for
        ],
        arrived_at=NOW,
    )
    since = [NOW, NOW + timedelta(minutes=5), NOW]
    assert best_shown(connection, [1, 2, 4], since=since, count=2) == {1: [11, 12]}
    assert best_shown(connection, [1], since=[NOW - timedelta(hours=1)], count=9) == {1: [10, 11, 12, 13]}
    assert best_shown(connection, [], since=[], count=9) == {}
