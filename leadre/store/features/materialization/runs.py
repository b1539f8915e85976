"""Runs of materialization: what is new, in shards of entities, and which shards are done. LEADRE §4.4.1.

New is what was written since the run before, told by transaction numbers (docs/adr/0006), and what was written earlier
but counts only since: its event time had not come. So a row counts as new once, whatever its event time is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from leadre.errors import ConfigError, FeatureRowMismatch
from leadre.store.features.materialization.view import View

SHARD_ENTITIES = 100_000
"""Entities in a shard (ours): seconds of work, which is what a killed process loses."""
_MOST_SHARDS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run over one view.

    Args:
        run: its number.
        view: the view's name.
        written_from: new is what this transaction or a later one wrote; 0: everything.
        waiting_from: of what was written before, new is what this transaction or a later one wrote...
        true_after: ...with an event time later than this.
        until: rows with an event time later than this wait for a later run.
        entities: how many had new rows when the run was planned.
        shards: how many are not finished.
        read: rows of those that are.
    """

    run: int
    view: str
    written_from: int
    waiting_from: int
    true_after: datetime | None
    until: datetime
    entities: int
    shards: int
    read: int

    def condition(self, view: View) -> str:
        """Return the SQL condition that the new rows of the view's source fulfil."""
        return _new(view, self.written_from, self.waiting_from, self.true_after, self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The entities of a run with ids above `low`, up to and with `high`; None: no bound."""

    run: Run
    shard: int
    low: int | None
    high: int | None

    def condition(self, view: View) -> str:
        """Return the SQL condition that the new rows of the shard's entities fulfil."""
        bounds = [f'"{view.join_key}" > {self.low:d}'] if self.low is not None else []
        bounds += [f'"{view.join_key}" <= {self.high:d}'] if self.high is not None else []
        return " AND ".join([self.run.condition(view), *bounds])


def newest(connection: Connection, view: str) -> int | None:
    """Return the number of a view's newest run, finished or not; None when there is none."""
    found: int | None = connection.scalar(
        text("SELECT max(run) FROM materializations WHERE view = :view"), {"view": view}
    )
    return found


def forget(connection: Connection, view: str) -> None:
    """Forget a view's runs: the next one takes everything."""
    connection.execute(text("DELETE FROM materializations WHERE view = :view"), {"view": view})


def unfinished(connection: Connection, views: Collection[str]) -> list[Run]:
    """Return the runs under way over some views."""
    query = text(
        "SELECT run, view, written_from, waiting_from, true_after, until, entities, "
        "count(shard) FILTER (WHERE read IS NULL) AS shards, coalesce(sum(read), 0)::bigint AS read "
        "FROM materializations LEFT JOIN materialization_shards USING (run) "
        "WHERE finished_at IS NULL AND view = ANY(:views) GROUP BY run ORDER BY run"
    )
    return [Run(**row) for row in connection.execute(query, {"views": list(views)}).mappings()]


def plan(connection: Connection, view: View, *, until: datetime, shard_entities: int = SHARD_ENTITIES) -> Run:
    """Begin a run over what is new in a view's source; where one is under way, return that.

    Args:
        connection: in a transaction.
        view: what to materialize.
        until: rows with a later event time wait for a later run.
        shard_entities: most entities of a shard, as long as there are no more than 1,024 shards.

    Raises:
        ConfigError: the source lacks a column.
    """
    if under_way := unfinished(connection, [view.name]):
        return under_way[0]
    # Before anything is read: what commits during the run is new to the next one.
    open_from = int(connection.scalar(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")) or 0)
    row = connection.execute(
        text(
            "SELECT next_written_from, next_waiting_from, until FROM materializations WHERE view = :view "
            "ORDER BY run DESC LIMIT 1"
        ),
        {"view": view.name},
    ).one_or_none()
    # A restored database counts transactions anew.
    before: tuple[int, int, datetime | None] = (
        (0, 0, None) if row is None or row[0] > open_from else (int(row[0]), int(row[1]), row[2])
    )
    entities, bounds = _entities(connection, view, _new(view, *before, until), shard_entities=shard_entities)
    inserted = connection.scalar(
        text(
            "INSERT INTO materializations (view, written_from, waiting_from, true_after, until, next_written_from, "
            "next_waiting_from, entities) VALUES (:view, :written_from, :waiting_from, :true_after, :until, "
            ":open_from, :next_waiting_from, :entities) ON CONFLICT (view) WHERE finished_at IS NULL DO NOTHING "
            "RETURNING run"
        ),
        {
            "view": view.name,
            **dict(zip(("written_from", "waiting_from", "true_after"), before, strict=True)),
            "until": until,
            "open_from": open_from,
            "next_waiting_from": min(open_from, _waiting(connection, view, before[1], until) or open_from),
            "entities": entities,
        },
    )
    if inserted is None:  # another process was quicker
        return plan(connection, view, until=until, shard_entities=shard_entities)
    if entities:
        rows = [
            {"run": inserted, "shard": shard, "low": low, "high": high}
            for shard, (low, high) in enumerate(zip([None, *bounds], [*bounds, None], strict=True))
        ]
        connection.execute(
            text("INSERT INTO materialization_shards (run, shard, low, high) VALUES (:run, :shard, :low, :high)"), rows
        )
    return unfinished(connection, [view.name])[0]


def claim(connection: Connection, runs: Collection[Run]) -> Shard | None:
    """Take a shard that is not finished and that nobody works on, until the transaction ends; None when there is none.

    A row lock is the claim: that of a process that dies ends with its connection.
    """
    query = text(
        "SELECT run, shard, low, high FROM materialization_shards WHERE run = ANY(:runs) AND read IS NULL "
        "ORDER BY run, shard LIMIT 1 FOR UPDATE SKIP LOCKED"
    )
    by_number = {run.run: run for run in runs}
    row = connection.execute(query, {"runs": list(by_number)}).one_or_none()
    return None if row is None else Shard(run=by_number[row.run], shard=row.shard, low=row.low, high=row.high)


def settle(connection: Connection, shard: Shard, *, read: int, written: int) -> None:
    """Note that a shard is finished.

    Args:
        connection: in the transaction that claimed it.
        shard: which.
        read: rows read, all acknowledged by the online store.
        written: of them, those that were newer than what it held.
    """
    statement = text(
        "UPDATE materialization_shards SET read = :read, written = :written WHERE run = :run AND shard = :shard"
    )
    values = {"run": shard.run.run, "shard": shard.shard, "read": read, "written": written}
    connection.execute(statement, values)


def finish(connection: Connection, run: Run, view: View) -> tuple[int, int] | None:
    """Finish a run whose shards are finished, after counting. The next one takes what was written since it was planned.

    Returns:
        Rows read and rows written; None when some shards are not finished. No rows when another process has finished
        the run, and one after it.

    Raises:
        FeatureRowMismatch: fewer rows were read than entities have new rows.
    """
    locked = text("SELECT finished_at FROM materializations WHERE run = :run FOR UPDATE")
    row = connection.execute(locked, {"run": run.run}).one_or_none()
    if row is None:
        return 0, 0
    totals = text(
        "SELECT count(*) FILTER (WHERE read IS NULL), coalesce(sum(read), 0)::bigint, coalesce(sum(written), 0)::bigint"
        " FROM materialization_shards WHERE run = :run"
    )
    waiting, read, written = connection.execute(totals, {"run": run.run}).one()
    if waiting:
        return None
    if row.finished_at is not None:
        return read, written
    if read < run.entities:  # unless rows were deleted meanwhile
        entities, _ = _entities(connection, view, run.condition(view), shard_entities=SHARD_ENTITIES)
        if read < entities:
            raise FeatureRowMismatch(
                f"the materialization of {view.name} read {read:,} rows, and {entities:,} {view.join_key}s have new "
                f"ones: run `leadre materialize --full --views {view.name}`"
            )
    connection.execute(text("UPDATE materializations SET finished_at = now() WHERE run = :run"), {"run": run.run})
    older = text("DELETE FROM materializations WHERE view = :view AND run < :run")
    connection.execute(older, {"view": run.view, "run": run.run})
    return read, written


def _new(view: View, written_from: int, waiting_from: int, true_after: datetime | None, until: datetime) -> str:
    condition = f"\"{view.event_at}\" <= '{until.isoformat()}'"
    if written_from == 0 or true_after is None:
        return condition
    condition += f" AND changed_in >= {waiting_from:d}"
    if waiting_from < written_from:
        condition += f" AND (changed_in >= {written_from:d} OR \"{view.event_at}\" > '{true_after.isoformat()}')"
    return condition


def _entities(connection: Connection, view: View, condition: str, *, shard_entities: int) -> tuple[int, list[int]]:
    """Return how many entities have rows that fulfil a condition, and the ids that part them into shards."""
    key = f'"{view.join_key}"'
    statement = text(
        f"SELECT count(*), percentile_disc(CAST(:fractions AS float8[])) WITHIN GROUP (ORDER BY id) "  # noqa: S608 - our definitions
        f"FROM (SELECT DISTINCT {key}::int8 AS id FROM {view.source} AS source WHERE {condition}) AS new"
    )
    fractions = [place / _MOST_SHARDS for place in range(1, _MOST_SHARDS)]
    with _columns_of(view):
        entities, ids = connection.execute(statement, {"fractions": fractions}).one()
    shards = min(_MOST_SHARDS, -(-entities // shard_entities))
    return entities, sorted({ids[shard * _MOST_SHARDS // shards - 1] for shard in range(1, shards)})


def _waiting(connection: Connection, view: View, waiting_from: int, until: datetime) -> int | None:
    """Return the oldest transaction that wrote a row whose event time has not come."""
    statement = text(
        f"SELECT min(changed_in) FROM {view.source} AS source "  # noqa: S608 - our definitions
        f'WHERE "{view.event_at}" > :until AND changed_in >= :waiting_from'
    )
    with _columns_of(view):
        found: int | None = connection.scalar(statement, {"until": until, "waiting_from": waiting_from})
    return found


@contextmanager
def _columns_of(view: View) -> Iterator[None]:
    try:
        yield
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != "42703":
            raise
        raise ConfigError(
            f"the source of {view.name} lacks a column ({str(error.orig).strip().splitlines()[0]}): what is new is "
            "told by changed_in (docs/adr/0006), which the source's query must select, and the schema must be the "
            "newest: `alembic upgrade head`"
        ) from error
