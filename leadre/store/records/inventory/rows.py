"""The inventory as arrays: which ads may be shown when and to whom, whole or only what changed. For LEADRE §3.3.

Every row carries the number of the transaction that last changed it. A reader that asks for the transactions from
`InventoryRows.cursor` on gets every change committed since its last read, however long the change waited for its
commit, and some changes twice. Deletions are rare: any of them makes the read a whole one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from leadre.domain.targeting import NOBODY, Targeting
from leadre.store.records.catalog import read_targeting

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_COPY_HEADER, _COPY_TRAILER = 19, 2  # bytes around the rows of COPY's binary format
_FIELDS = (("ad_id", ">i8"), ("on", "u1"), ("starts_us", ">i8"), ("ends_us", ">i8"), ("targeting", ">i8"))
_ROW = np.dtype(
    [("columns", ">i2"), *(pair for name, kind in _FIELDS for pair in ((f"{name}_bytes", ">i4"), (name, kind)))]
)
"""A row of COPY's binary format; no column is null or of varying length, so that rows are one array."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InventoryRows:
    """Ads by ascending id.

    Args:
        ad_ids: int64[n].
        on: not paused and with budget left, bool[n].
        starts_us: from when the ad may be shown, int64[n] as `microseconds` counts; the least int64 without a bound.
        ends_us: from when it may not be shown any more, likewise; the greatest int64 without a bound.
        targetings: different ones; one that cannot be read is `NOBODY`.
        targeting: positions in `targetings`, int32[n].
        cursor: where the next read of changes begins.
        whole: whether these are all ads, so that any other ad is gone.
    """

    ad_ids: NDArray[np.int64]
    on: NDArray[np.bool_]
    starts_us: NDArray[np.int64]
    ends_us: NDArray[np.int64]
    targetings: tuple[Targeting, ...]
    targeting: NDArray[np.int32]
    cursor: int
    whole: bool


def microseconds(at: datetime) -> int:
    """Return an aware time as schedules are kept: microseconds since 2000."""
    return (at - _POSTGRES_EPOCH) // timedelta(microseconds=1)


def read_inventory(
    connection: Connection, *, since: int | None = None, ad_ids: NDArray[np.int64] | None = None
) -> InventoryRows:
    """Read all ads, those changed since an earlier read, or some.

    Args:
        connection: in a transaction.
        since: an earlier read's `cursor`; reads what changed, or everything if an ad was deleted.
        ad_ids: reads these ads instead, as far as they exist.

    Raises:
        Unavailable: PostgreSQL does not answer (from `transaction`).
    """
    # First, and so as of a moment before the rows are read: what commits in between is read again.
    cursor = int(connection.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).scalar_one())
    if since is not None:
        deleted = text("SELECT EXISTS (SELECT FROM ad_deletions WHERE changed_in >= :since)")
        since = None if connection.execute(deleted, {"since": since}).scalar_one() else since
    condition = "true" if since is None else f"changed_in >= {since:d}"
    if ad_ids is not None:
        condition = f"ad_id = ANY('{{{','.join(map(str, ad_ids.tolist()))}}}'::bigint[])"
    rows = _copy(connection, condition)
    rows = rows[np.argsort(rows["ad_id"])]
    found, targeting = np.unique(rows["targeting"].astype(np.int64), return_inverse=True)
    known = _targetings(connection, condition)
    return InventoryRows(
        ad_ids=rows["ad_id"].astype(np.int64),
        on=rows["on"].astype(np.bool_),
        starts_us=rows["starts_us"].astype(np.int64),
        ends_us=rows["ends_us"].astype(np.int64),
        # Absent only if every ad that had it was changed a moment ago: the next read brings them again.
        targetings=tuple(known.get(hashed, NOBODY) for hashed in found.tolist()),
        targeting=targeting.astype(np.int32),
        cursor=cursor,
        whole=since is None and ad_ids is None,
    )


def _copy(connection: Connection, condition: str) -> NDArray[np.void]:
    query = f"""
        COPY (
            SELECT ad_id, live AND NOT budget_exhausted, coalesce(starts_at, '-infinity'),
                   coalesce(ends_at, 'infinity'), jsonb_hash_extended(targeting, 0)
            FROM ads WHERE {condition}
        ) TO STDOUT (FORMAT binary)
    """  # noqa: S608 - our own words and numbers
    received = BytesIO()
    with closing(connection.connection.cursor()) as cursor:
        cursor.copy_expert(query, received)
    size = received.tell() - _COPY_HEADER - _COPY_TRAILER
    return np.frombuffer(received.getbuffer(), _ROW, offset=_COPY_HEADER, count=size // _ROW.itemsize)


def _targetings(connection: Connection, condition: str) -> dict[int, Targeting]:
    """Return the different targetings by their hashes: among a million, two share a hash with probability 3e-8."""
    query = f"""
        SELECT jsonb_hash_extended(targeting, 0), targeting
        FROM (SELECT DISTINCT targeting FROM ads WHERE {condition}) AS found
    """  # noqa: S608 - our own words and numbers
    return {hashed: read_targeting(plain) for hashed, plain in connection.execute(text(query))}
