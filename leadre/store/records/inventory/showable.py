"""Which ads may be shown and what their owner calls them, as rows: all of them, or only what changed.

LEADRE §4.4.1, for servers that keep both in memory. Changes are found by transaction number (docs/adr/0006).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Connection, text

NO_BEGIN_S, NO_END_S = 0, 2**32 - 1
"""What an ad without a schedule has as its bounds, in Unix seconds."""
_COLUMNS = {
    "ad_id": pa.int64(),
    "name": pa.string(),
    "on": pa.uint8(),
    "begins_s": pa.uint32(),
    "ends_s": pa.uint32(),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShowableRows:
    """Ads by ascending id.

    Args:
        ad_ids: int64[n].
        texts: parallel to `ad_ids`: what the owner calls the ad; empty where that is its id.
        on: not paused and with budget left, bool[n].
        begins_s: Unix second from which the ad may be shown, uint32[n]; `NO_BEGIN_S` without a bound.
        ends_s: Unix second from which it may not, uint32[n]; `NO_END_S` without a bound.
    """

    ad_ids: NDArray[np.int64]
    texts: pa.StringArray
    on: NDArray[np.bool_]
    begins_s: NDArray[np.uint32]
    ends_s: NDArray[np.uint32]

    def __len__(self) -> int:
        """Return the number of ads."""
        return len(self.ad_ids)


NO_ROWS = ShowableRows(
    ad_ids=np.empty(0, np.int64),
    texts=pa.array([], pa.string()),
    on=np.empty(0, np.bool_),
    begins_s=np.empty(0, np.uint32),
    ends_s=np.empty(0, np.uint32),
)


def read_showable(connection: Connection, *, since: int | None = None) -> tuple[ShowableRows, int, bool]:
    """Read all ads, or those changed since an earlier read.

    Args:
        connection: in a transaction.
        since: an earlier read's cursor; reads what changed, or everything if an ad was deleted.

    Returns:
        The rows, the cursor of the next read, and whether these are all ads, so that any other ad is gone.

    Raises:
        Unavailable: PostgreSQL does not answer (from `transaction`).
    """
    # First, and so as of a moment before the rows are read: what commits in between is read again.
    cursor = int(connection.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).scalar_one())
    if since is not None:
        deleted = text("SELECT EXISTS (SELECT FROM ad_deletions WHERE changed_in >= :since)")
        since = None if connection.execute(deleted, {"since": since}).scalar_one() else since
    condition = "true" if since is None else f"changed_in >= {since:d}"
    query = f"""
        COPY (SELECT ad_id, CASE WHEN source_id = ad_id::text THEN '' ELSE source_id END,
                     (live AND NOT budget_exhausted)::int,
                     {_second("starts_at", "ceil", NO_BEGIN_S)}, {_second("ends_at", "floor", NO_END_S)}
              FROM ads WHERE {condition} ORDER BY ad_id) TO STDOUT (FORMAT csv, FORCE_QUOTE *)
    """  # noqa: S608 - our own words and a number
    received = BytesIO()
    with closing(connection.connection.cursor()) as database_cursor:
        database_cursor.copy_expert(query, received)
    if not received.tell():
        return NO_ROWS, cursor, since is None
    received.seek(0)
    read = csv.read_csv(
        received,
        read_options=csv.ReadOptions(column_names=tuple(_COLUMNS)),
        convert_options=csv.ConvertOptions(column_types=_COLUMNS),
    ).combine_chunks()
    rows = ShowableRows(
        ad_ids=read["ad_id"].to_numpy(),
        texts=read["name"].combine_chunks(),
        on=read["on"].to_numpy().astype(np.bool_),
        begins_s=read["begins_s"].to_numpy(),
        ends_s=read["ends_s"].to_numpy(),
    )
    return rows, cursor, since is None


def merged(old: ShowableRows, new: ShowableRows) -> ShowableRows:
    """Return the rows of both, those of `new` where both have an ad."""
    kept = np.flatnonzero(~np.isin(old.ad_ids, new.ad_ids))
    ad_ids = np.concatenate([old.ad_ids[kept], new.ad_ids])
    order = np.argsort(ad_ids)
    texts = pa.concat_arrays([old.texts.take(pa.array(kept)), new.texts]).take(pa.array(order))
    columns = {
        name: np.concatenate([getattr(old, name)[kept], getattr(new, name)])[order]
        for name in ("on", "begins_s", "ends_s")
    }
    return ShowableRows(ad_ids=ad_ids[order], texts=texts, **columns)


def _second(column: str, rounded: str, otherwise: int) -> str:
    second = f"{rounded}(extract(epoch FROM {column}))"
    bounded = f"least(greatest({second}, 0), {NO_END_S})::bigint"
    return (
        f"CASE WHEN isfinite({column}) THEN {bounded} WHEN {column} > '2000-01-01' THEN {NO_END_S} "
        f"WHEN {column} < '2000-01-01' THEN {NO_BEGIN_S} ELSE {otherwise} END"
    )
