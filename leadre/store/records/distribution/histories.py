"""Which ads users clicked, in arrays: of everybody to count by, of some to make lists from. LEADRE §4.2.1 (4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryFile

import numpy as np
from pyarrow import csv
from sqlalchemy import Connection, text

from leadre.domain.behavior import POSITIVE
from leadre.domain.users import Profile
from leadre.evaluation.baselines import Histories

_POSITIVE = ", ".join(f"'{action}'" for action in sorted(POSITIVE))
_PROFILE = tuple(name for name in Profile.__dataclass_fields__ if name not in ("user_id", "arpu"))
_LOOKED_AT = 200
"""Behaviors of a user that are looked through for its newest ads (ours): most of a robot's are impressions."""

_NEWEST = text(f"""
    SELECT asked.user_id, coalesce(behavior_sequence, 0),
        CASE WHEN newest_behavior_at > :now THEN :now ELSE newest_behavior_at END, ads,
        {", ".join(f"u.{name}" for name in _PROFILE)}
    FROM unnest(CAST(:users AS bigint[])) WITH ORDINALITY AS asked (user_id, place)
    LEFT JOIN user_state USING (user_id)
    LEFT JOIN users AS u USING (user_id)
    LEFT JOIN LATERAL (
        SELECT array_agg(item_id) AS ads FROM (
            SELECT item_id FROM (
                SELECT item_id, domain, action, occurred_at, ordinal FROM behaviors
                WHERE user_id = asked.user_id AND occurred_at <= :now
                ORDER BY occurred_at DESC, ordinal DESC LIMIT {_LOOKED_AT}
            ) AS newest
            WHERE domain = 'ad' AND action IN ({_POSITIVE})
            ORDER BY occurred_at DESC, ordinal DESC LIMIT :count
        ) AS clicked
    ) AS clicked ON true
    ORDER BY place
""")  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestAds:
    """A user, and the ads it last clicked or converted.

    Args:
        profile: without `arpu`; empty of an unknown user.
        behavior_sequence: `user_state.behavior_sequence` of the same instant.
        newest_at: time of its newest positive behavior, of whatever domain; None where it has none.
        ad_ids: the newest first.
    """

    profile: Profile
    behavior_sequence: int
    newest_at: datetime | None
    ad_ids: tuple[int, ...]


def newest_ads(connection: Connection, user_ids: Sequence[int], *, now: datetime, count: int) -> list[NewestAds]:
    """Return what each user last clicked, in one statement and so as of one instant; in the order given.

    Args:
        connection: any.
        user_ids: different ones.
        now: later behaviors are not seen.
        count: ads of a user at most.
    """
    rows = connection.execute(_NEWEST, {"users": list(user_ids), "now": now, "count": count})
    return [
        NewestAds(
            profile=Profile(user_id=user_id)
            if known[1] is None
            else Profile(user_id=user_id, **dict(zip(_PROFILE, known, strict=True))),
            behavior_sequence=sequence,
            newest_at=newest_at,
            ad_ids=tuple(ad_ids or ()),
        )
        for user_id, sequence, newest_at, ad_ids, *known in rows
    ]


def ad_histories(connection: Connection, *, since: datetime, until: datetime, most: int) -> Histories:
    """Return the ads that users clicked or converted after `since`, up to `until`: a row a user.

    Args:
        connection: in a transaction.
        since: exclusive.
        until: inclusive.
        most: only the newest so many clicks and conversions count.
    """
    query = f"""
        SELECT user_id, item_id FROM (
            SELECT user_id, item_id, occurred_at, ordinal, behavior_id FROM behaviors
            WHERE domain = 'ad' AND action IN ({_POSITIVE}) AND occurred_at > %s AND occurred_at <= %s
            ORDER BY occurred_at DESC LIMIT %s
        ) AS newest ORDER BY user_id, occurred_at, ordinal, behavior_id
    """  # noqa: S608 - our own names
    with closing(connection.connection.cursor()) as cursor, TemporaryFile() as file:
        statement = cursor.mogrify(query, (since, until, most)).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT csv)", file)
        if not file.tell():
            return Histories.of([])
        file.seek(0)
        read = csv.read_csv(file, read_options=csv.ReadOptions(column_names=("user", "item")))
    users = read["user"].to_numpy()
    begins = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    return Histories(offsets=np.append(begins, len(users)).astype(np.int64), items=read["item"].to_numpy())
