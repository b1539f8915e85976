"""Impressions as a ranker's training row sees them: with the list and the index that counted when each was made.

LEADRE §5.3. Of samples of users: LATERAL with LIMIT looks the rows of the named users and ads up, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from leadre.derivation.item_match import Targets, ad_keys
from leadre.derivation.user_side import directions

_PER_USER = 50  # impressions of a user and window at most (ours): one user cannot fill a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Impressions with the list that counted when each was made.

    Args:
        ad_ids: int64[n].
        times_s: float64[n], Unix seconds.
        list_of: int64[n], positions in `records`; those without a list have the last, which is None.
        records: the lists.
    """

    ad_ids: NDArray[np.int64]
    times_s: NDArray[np.float64]
    list_of: NDArray[np.int64]
    records: tuple[bytes | None, ...]


def shown(
    connection: Connection, user_ids: NDArray[np.int64], *, after: datetime, until: datetime, ttl: timedelta
) -> Shown:
    """Return the users' impressions after one time and up to another, each with the list that counted then.

    Args:
        connection: any.
        user_ids: whose; the newest `_PER_USER` of each.
        after: impressions at it are left out.
        until: those at it are not.
        ttl: older lists do not count.
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
    asked = {"ids": user_ids.tolist(), "after": after, "until": until, "most": _PER_USER}
    rows = connection.execute(statement, {**asked, "ttl": ttl, "oldest": after - ttl}).all()
    keys = list({(row.user_id, row.event_at, row.release) for row in rows if row.event_at is not None})
    users, times, releases = zip(*keys, strict=True) if keys else ((), (), ())
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
    ).all()
    place = {(row.user_id, row.event_at, row.release): number for number, row in enumerate(records)}
    return Shown(
        ad_ids=_integers([row.ad_id for row in rows]),
        times_s=np.array([row.at_s for row in rows], dtype=np.float64),
        list_of=_integers([place.get((row.user_id, row.event_at, row.release), len(records)) for row in rows]),
        records=(*(bytes(row.record) for row in records), None),
    )


def targets(
    connection: Connection, ad_ids: NDArray[np.int64], times_s: NDArray[np.float64]
) -> tuple[Targets, NDArray[np.int64]]:
    """Return target ads as the index that was live at each time has them.

    Args:
        connection: any.
        ad_ids: int64[n].
        times_s: float64[n], Unix seconds.

    Returns:
        The different ads, and where each of the n is among them: int64[n], -1 for one that the index did not know yet.
    """
    promotions = connection.execute(
        text(
            "SELECT extract(epoch FROM promoted_at)::float8 AS at_s, index_version FROM releases "
            "WHERE promoted_at IS NOT NULL ORDER BY promoted_at"
        )
    ).all()
    # Before the first promotion that is known nothing was live.
    live = np.searchsorted([row.at_s for row in promotions], times_s, side="right") - 1
    versions = [row.index_version for row in promotions]
    wanted = {(versions[at], ad_id) for at, ad_id in zip(live.tolist(), ad_ids.tolist(), strict=True) if at >= 0}
    of_version, ids = zip(*wanted, strict=True) if wanted else ((), ())
    rows = connection.execute(
        text(
            """
            SELECT s.*, extract(epoch FROM s.event_at)::float8 AS at_s
            FROM unnest(CAST(:names AS text[]), CAST(:ids AS bigint[])) AS w (index_version, ad_id) CROSS JOIN LATERAL (
                SELECT * FROM semantic_ids i WHERE i.index_version = w.index_version AND i.ad_id = w.ad_id LIMIT 1
            ) s
            """
        ),
        {"names": list(of_version), "ids": list(ids)},
    ).all()
    place = {(row.index_version, row.ad_id): number for number, row in enumerate(rows)}
    of_row = _integers(
        [
            place.get((versions[at], ad), -1) if at >= 0 else -1
            for at, ad in zip(live.tolist(), ad_ids.tolist(), strict=True)
        ]
    )
    known_at = np.array([*(row.at_s for row in rows), np.inf])  # the last for -1
    of_row[known_at[of_row] > times_s] = -1
    codes, levels = _padded([row.codes for row in rows], np.int64)
    embeddings, widths = _padded([row.embedding for row in rows], np.float32)
    names = {name: number for number, name in enumerate(sorted({row.index_version for row in rows}))}
    categories: dict[str, int] = {"": -1}
    first, second = (
        _integers([categories.setdefault(getattr(row, column), len(categories)) for row in rows])
        for column in ("first_category", "second_category")
    )
    found = Targets(
        keys=ad_keys(
            codes,
            levels,
            first_categories=first,
            second_categories=second,
            advertiser_ids=_integers([row.advertiser_id for row in rows]),
        ),
        category_numbers=categories,
        versions=np.array([names[row.index_version] for row in rows], dtype=np.int32),
        version_names=tuple(names),
        levels=levels.astype(np.uint8),
        codes=codes,
        widths=widths.astype(np.uint16),
        directions=directions(embeddings),
    )
    return found, of_row


def _padded(rows: Sequence[Sequence[float]], kind: type) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return rows of any lengths as a matrix, zeros behind the shorter ones, and their lengths."""
    lengths = _integers([len(row) for row in rows])
    matrix: NDArray[Any] = np.zeros((len(rows), int(lengths.max(initial=0))), dtype=kind)
    for number, row in enumerate(rows):
        matrix[number, : len(row)] = row
    return matrix, lengths


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
