"""What the quality of features is read from: samples of users and ads, their rows in PostgreSQL and in Redis.

LEADRE §4.4.1. One pass over `user_state` (a narrow row a user) draws the sample, the same at every call: the users
whose ids' hashes are the smallest. All else is bounded by it: LATERAL with LIMIT looks rows up, and scans nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import redis
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from leadre.domain.behavior import POSITIVE
from leadre.errors import Unavailable

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveUsers:
    """A sample of the active users.

    Args:
        ids: int64[n].
        total: how many it was drawn from.
    """

    ids: NDArray[np.int64]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLists:
    """Lists of the retrieval log, each a user's newest in a window.

    Args:
        user_ids: int64[n].
        releases: n names.
        index_versions: n names.
        records: n list records.
    """

    user_ids: NDArray[np.int64]
    releases: tuple[str, ...]
    index_versions: tuple[str, ...]
    records: tuple[bytes, ...]


def active_users(connection: Connection, *, since: datetime, now: datetime, size: int) -> ActiveUsers:
    """Sample the users with a positive behavior after `since` and up to `now`."""
    statement = text(
        """
        WITH drawn AS (
            SELECT user_id FROM user_state WHERE newest_behavior_at > :since ORDER BY hashint8(user_id), user_id
            LIMIT :size
        )
        SELECT user_id FROM drawn CROSS JOIN LATERAL (
            SELECT FROM behaviors b WHERE b.user_id = drawn.user_id AND b.occurred_at > :since
            AND b.occurred_at <= :now AND b.action = ANY(:positive) LIMIT 1
        ) AS one ORDER BY hashint8(user_id), user_id
        """
    )
    asked = {"since": since, "now": now, "size": size, "positive": sorted(POSITIVE)}
    total = connection.scalar(text("SELECT count(*) FROM user_state WHERE newest_behavior_at > :since"), asked)
    return ActiveUsers(ids=_integers(connection.scalars(statement, asked).all()), total=int(total or 0))


def changed_users(connection: Connection, *, since: datetime, size: int) -> NDArray[np.int64]:
    """Sample the users of whom anything was written after `since`: whoever saw an ad after it is among them.

    A smaller sample is the beginning of a larger one.
    """
    statement = text(
        "SELECT user_id FROM user_state WHERE changed_at > :since ORDER BY hashint8(user_id), user_id LIMIT :size"
    )
    return _integers(connection.scalars(statement, {"since": since, "size": size}).all())


def some_ads(connection: Connection, *, size: int) -> NDArray[np.int64]:
    """Sample the catalog's ads."""
    statement = text("SELECT ad_id FROM ads ORDER BY hashint8(ad_id), ad_id LIMIT :size")
    return _integers(connection.scalars(statement, {"size": size}).all())


def newest_times(
    connection: Connection, view: FeatureView, ids: NDArray[np.int64], *, until: datetime
) -> NDArray[np.float64]:
    """Return when the newest row that counts of each key in a view's source became true.

    Args:
        connection: any.
        view: of feature_repo.
        ids: keys.
        until: later rows are left out, and so are those that are older than the view's ttl.

    Returns:
        float64[n], Unix seconds; NaN where there is no row.
    """
    assert view.batch_source is not None  # noqa: S101 - every view of feature_repo has one
    key, source = view.join_keys[0], view.batch_source.get_table_query_string()
    statement = text(
        f"SELECT {key}, extract(epoch FROM max(event_at))::float8 FROM {source} AS source "  # noqa: S608 - our definitions
        f"WHERE {key} = ANY(:ids) AND event_at <= :until AND event_at > :after GROUP BY {key}"
    )
    after = until - view.ttl if view.ttl else datetime(1, 1, 1, tzinfo=UTC)
    rows = connection.execute(statement, {"ids": ids.tolist(), "until": until, "after": after}).all()
    times = {row[0]: row[1] for row in rows}
    return np.array([times.get(key, np.nan) for key in ids.tolist()], dtype=np.float64)


def online_times(store: FeatureStore, view: FeatureView, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the event time of each key's row in the online store, float64[n] Unix seconds; NaN where there is none."""
    times, _ = _online(store, view, view.features[0].name, ids)
    return times


def online_records(store: FeatureStore, user_ids: NDArray[np.int64]) -> list[bytes | None]:
    """Return each user's list record as the online store has it."""
    return _online(store, store.get_feature_view("retrieved_ads"), "retrieved_list", user_ids)[1]


def _online(
    store: FeatureStore, view: FeatureView, feature: str, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[Any]]:
    if not len(ids):
        return np.empty(0), []
    key = view.join_keys[0]
    try:
        response = store.get_online_features([f"{view.name}:{feature}"], [{key: number} for number in ids.tolist()])
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise Unavailable(f"Redis does not answer: {error}; try again, or look whether it runs") from error
    # Of an absent key Feast says PRESENT and null; only its time, 1970, tells.
    position = list(response.proto.metadata.feature_names.val).index(feature)
    times = np.array([at.seconds + at.nanos / 1e9 for at in response.proto.results[position].event_timestamps])
    return np.where(times > 0, times, np.nan), response.to_dict()[feature]


def summarized(connection: Connection, user_ids: NDArray[np.int64], *, now: datetime) -> NDArray[np.bool_]:
    """Return which users have an interest summary that was known at `now`, bool[n]."""
    statement = text(
        """
        SELECT one.user_id IS NOT NULL FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS u (user_id, place)
        LEFT JOIN LATERAL (
            SELECT s.user_id FROM interest_summaries s WHERE s.user_id = u.user_id AND s.event_at <= :now LIMIT 1
        ) AS one ON true ORDER BY u.place
        """
    )
    return np.array(connection.scalars(statement, {"ids": user_ids.tolist(), "now": now}).all(), dtype=np.bool_)


def newest_lists(
    connection: Connection, user_ids: NDArray[np.int64], *, after: datetime, until: datetime
) -> StoredLists:
    """Return each user's newest list generated after one time and up to another; users without one are left out."""
    statement = text(
        """
        SELECT u.user_id, l.release, l.index_version, l.record
        FROM unnest(CAST(:ids AS bigint[])) AS u (user_id) CROSS JOIN LATERAL (
            SELECT * FROM retrieval_log r WHERE r.user_id = u.user_id AND r.event_at > :after AND r.event_at <= :until
            ORDER BY r.event_at DESC, r.created_at DESC LIMIT 1
        ) l
        """
    )
    rows = connection.execute(statement, {"ids": user_ids.tolist(), "after": after, "until": until}).all()
    return StoredLists(
        user_ids=_integers([row.user_id for row in rows]),
        releases=tuple(row.release for row in rows),
        index_versions=tuple(row.index_version for row in rows),
        records=tuple(bytes(row.record) for row in rows),
    )


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
