"""Some users' summaries and sequences in one statement, as their lists are about to be made. LEADRE §4.2.1 (3, 4, 5).

What `instants` and `rows` do for everybody by way of tables, here within a statement: one round trip instead of twenty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from leadre.store.records.known.instants import CHANGES, DONE, HAPPENED, SUMMARIZED, what_counts
from leadre.store.records.known.rows import SEQUENCES, SUMMARIES
from leadre.store.records.partitions import ensure_months, missing_months
from leadre.store.records.prepared import Prepared

_TABLES = ("interest_summaries", "behavior_sequences")
_TYPES = {
    "user_ids": "bigint[]",
    "now": "timestamptz",
    "window_days": "int",
    "most": "int",
    "skip": "text",
    "impression": "text",
    "counted": "text[]",
    "top": "int",
    "longest": "int",
}

# In a statement of its own, before: the next one sees what those have committed who were waited for.
_LOCK = Prepared(
    name="leadre_lock_users",
    statement="SELECT FROM user_state WHERE user_id = ANY(:user_ids) ORDER BY user_id FOR NO KEY UPDATE",
    types={"user_ids": "bigint[]"},
)

# Names of this statement come before those of tables. Where a row's month is missing, nothing is written at all.
_SUMMARIZE = Prepared(
    name="leadre_summarize_users",
    statement=f"""
WITH summarized AS MATERIALIZED ({SUMMARIZED}), happened AS MATERIALIZED ({HAPPENED}),
changing AS MATERIALIZED ({CHANGES.format(at_now="true")}),
missing AS MATERIALIZED ({missing_months(_TABLES, "changing")}),
changes AS MATERIALIZED (SELECT * FROM changing WHERE NOT EXISTS (SELECT FROM missing)),
summaries AS ({SUMMARIES} RETURNING 1), sequences AS ({SEQUENCES} RETURNING 1),
done AS ({DONE} AND NOT EXISTS (SELECT FROM missing))
SELECT (SELECT count(*) FROM summarized) AS summarized, (SELECT count(*) FROM summaries) AS summaries,
       (SELECT count(*) FROM sequences) AS sequences, (SELECT array_agg(month) FROM missing) AS missing,
       array_agg(user_id) AS user_ids, array_agg(behavior_sequence) AS behavior_sequences
FROM user_state WHERE user_id = ANY(:user_ids)
""",  # noqa: S608 - our own words
    types=_TYPES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What was done for given users.

    Args:
        summarized: how many of them.
        interest_summaries: rows appended.
        behavior_sequences: rows appended.
        known: of those with a row in `user_state`, how many positive behaviors were ever written: what the rows hold.
    """

    summarized: int
    interest_summaries: int
    behavior_sequences: int
    known: Mapping[int, int]


def summarize_given(
    connection: Connection,
    user_ids: Collection[int],
    *,
    now: datetime,
    window_days: int,
    top: int = 20,
    longest: int = 512,
) -> Given:
    """Append given users' summaries and sequences up to `now`, as `summaries.summarize_batch` does for those who wait.

    Users without news are looked at too: the catalog may have changed. Who is being written to is waited for.

    Args:
        connection: in a transaction, or one whose every statement is committed by itself: this is one.
        user_ids: whoever is summarized up to `now` or further is left out.
        now: what is known later does not exist yet.
        window_days: as `summarize_batch`, and so the others.
        top: names kept of each kind.
        longest: behaviors kept in each domain.
    """
    if not user_ids:
        return Given(summarized=0, interest_summaries=0, behavior_sequences=0, known={})
    rows = len(user_ids)
    statement = f"{_LOCK.sql(connection, rows=rows)}; {_SUMMARIZE.sql(connection, rows=rows)}"
    parameters = {**what_counts(user_ids, now=now, window_days=window_days), "top": top, "longest": longest}
    found = connection.exec_driver_sql(statement, parameters).one()
    if found.missing:
        for table in _TABLES:
            ensure_months(connection, table, found.missing)
        found = connection.exec_driver_sql(statement, parameters).one()
    return Given(
        summarized=found.summarized,
        interest_summaries=found.summaries,
        behavior_sequences=found.sequences,
        known=dict(zip(found.user_ids or (), found.behavior_sequences or (), strict=True)),
    )
