"""ARPU groups in the system of record: who is in which, what each is worth, how fresh their lists are.

LEADRE §4.4.1, §5.4. Set-based SQL over all users; `leadre.retrieval.priority` prints the grouping in arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, text

from leadre.store.records.tables import arpu_groups as groups_table

ARPU_GROUPS = 25
"""§5.4: users are put into 25 groups by ARPU."""

MARGIN = 0.25
"""How far beyond its group a user's place is before it changes, in widths of a group (ours)."""

# rank() and not ntile(): users of equal ARPU have one place.
_REGROUP = text("""
    UPDATE users SET arpu_group = grouped.arpu_group
    FROM (
        SELECT user_id, CASE
            WHEN place >= arpu_group - :margin AND place < arpu_group + 1 + :margin THEN arpu_group
            ELSE floor(place)
        END AS arpu_group
        FROM (
            SELECT user_id, arpu_group,
                (rank() OVER (ORDER BY arpu) - 1) * CAST(:groups AS float8) / count(*) OVER () AS place
            FROM users
        ) AS placed
    ) AS grouped
    WHERE users.user_id = grouped.user_id AND users.arpu_group IS DISTINCT FROM grouped.arpu_group
""")
_MEANS = text("SELECT arpu_group, count(*), avg(arpu) FROM users WHERE arpu_group IS NOT NULL GROUP BY arpu_group")
# The partial index ix_user_state_unlisted holds the stale users, and nobody else is read.
_STALE = text("""
    SELECT coalesce(users.arpu_group, 0) AS arpu_group, count(*)
    FROM user_state LEFT JOIN users USING (user_id)
    WHERE behavior_sequence > listed_sequence AND newest_behavior_at <= :now
    GROUP BY 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArpuGroup:
    """A group: 0 (lowest ARPU) to 24, how many users it has, their mean ARPU, and what a user of it is worth."""

    arpu_group: int
    users: int
    mean_arpu: float
    value: float


def group_by_arpu(connection: Connection, *, margin: float = MARGIN) -> int:
    """Put users into 25 groups of like ARPU, 0 the lowest. Returns of how many the group changed.

    Args:
        connection: in a transaction.
        margin: a user leaves its group only when its place lies so far beyond it, in widths of a group.
    """
    return connection.execute(_REGROUP, {"groups": ARPU_GROUPS, "margin": margin}).rowcount


def mean_arpus(connection: Connection) -> dict[int, tuple[int, float]]:
    """Return how many users each group has, and their mean ARPU; empty groups are left out. It reads all users."""
    return {group: (count, mean) for group, count, mean in connection.execute(_MEANS)}


def grouped_at(connection: Connection) -> datetime | None:
    """Return when the groups were last made; None before the first time."""
    return connection.scalar(select(groups_table.c.computed_at).limit(1))


def any_ungrouped(connection: Connection) -> bool:
    """Return whether some users are in no group yet: they came after the groups were made."""
    return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM users WHERE arpu_group IS NULL)")))


def read_groups(connection: Connection) -> list[ArpuGroup]:
    """Return the 25 groups as last made, the lowest first; none before the first time."""
    columns = [groups_table.c[name] for name in ArpuGroup.__dataclass_fields__]
    rows = connection.execute(select(*columns).order_by(groups_table.c.arpu_group))
    return [ArpuGroup(**row._mapping) for row in rows]


def write_groups(connection: Connection, groups: Sequence[ArpuGroup], *, now: datetime) -> None:
    """Replace the groups."""
    connection.execute(groups_table.delete())
    rows = [{name: getattr(group, name) for name in ArpuGroup.__dataclass_fields__} for group in groups]
    connection.execute(insert(groups_table), [{**row, "computed_at": now} for row in rows])


def stale_by_group(connection: Connection, *, now: datetime) -> dict[int, int]:
    """Return how many users of each group have behaviors that their newest list does not know; 0 is left out."""
    return {group: count for group, count in connection.execute(_STALE, {"now": now})}  # noqa: C416 - rows
