"""How fast do behaviors become summaries and sequences? All of them in one command, and a day of them after that.

LEADRE §4.2.1 (3-5). A made-up log of 95 days is imported (users of log-normal activity, items of a power law), then
summarized: most users have several instants, as something leaves their window of 90 days. Then a day's behaviors arrive
and the day is summarized. Peer: plain Python over the rows of some of the users, which reads, counts and writes the
same rows, instant by instant; that they are the same is checked. A server of its own in a temporary folder.

Usage: python benchmarks/bench_summaries.py [--behaviors N] [--users N] [--connections N] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv
from servers import own_servers, print_figures
from sqlalchemy import Connection, Engine, Row, text

from leadre.domain.behavior import Action, window_start
from leadre.pipelines.summarize import summarize
from leadre.store.records.bulk import ROW, Staged, staged
from leadre.store.records.database import connect, migrate, transaction
from leadre.store.records.known.writes import BEHAVIOR, append, write_import
from leadre.store.records.summaries import SummaryCounts
from leadre.store.records.tables import behavior_sequences, interest_summaries

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS, WINDOW_DAYS, TOP, LONGEST = 95, 90, 20, 512
ITEMS, CATEGORIES, SPUS = 50_000, 400, 5_000
ACTIONS = np.array([Action.CLICK, Action.CONVERSION, Action.WATCH, Action.SEARCH, Action.SKIP], object)
CHUNK = 500_000
PEER_ROWS = 200_000
"""Plain Python is timed on the users of about so many behaviors."""

Content = tuple[Any, ...]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--behaviors", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, help="a tenth of the behaviors by default")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="200,000 behaviors")
    parser.add_argument("--json", action="store_true", help="JSON on the last line instead of a table")
    arguments = parser.parse_args()
    behaviors = 200_000 if arguments.quick else arguments.behaviors
    users = arguments.users or behaviors // 10
    with own_servers(durable=False) as settings:
        figures = measure(settings.database_url, behaviors, users, connections=arguments.connections)
    print_figures(figures, as_json=arguments.json)


def measure(url: str, behaviors: int, users: int, *, connections: int) -> dict[str, float]:
    """Return the figures."""
    migrate(url)
    engine = connect(url, statement_timeout_s=0)
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1, users)
    log = made_up(rng, behaviors, weights / weights.sum(), NOW - DAYS * DAY, DAYS * DAY, first_id=0)
    day = made_up(rng, behaviors // DAYS, weights / weights.sum(), NOW, DAY, first_id=behaviors)
    with transaction(engine) as connection:
        make_catalog(connection)
    import_s = timed(lambda: import_log(engine, log))
    full, full_s = summarized(url, NOW, connections=connections)
    most = int(users * min(1, PEER_ROWS / behaviors))
    read, python_s = plain_python(engine, most)
    append_s = timed(lambda: append_day(engine, day))
    daily, day_s = summarized(url, NOW + DAY, connections=connections)
    engine.dispose()
    return {
        "behaviors": behaviors,
        "users": full.summarized,
        "rows": full.interest_summaries + full.behavior_sequences,
        "import_rows_per_s": round(behaviors / import_s),
        "ours_rows_per_s": round(behaviors / full_s),
        "python_rows_per_s": round(read / python_s),
        "full_s": round(full_s, 2),
        "day_behaviors": behaviors // DAYS,
        "day_users": daily.summarized,
        "day_rows": daily.interest_summaries + daily.behavior_sequences,
        "append_rows_per_s": round(behaviors // DAYS / append_s),
        "day_s": round(day_s, 2),
    }


def made_up(
    rng: np.random.Generator, rows: int, weights: np.ndarray, start: datetime, over: timedelta, *, first_id: int
) -> dict[str, np.ndarray]:
    """Return the columns of a log."""
    ad = rng.random(rows) < 0.5
    chance = rng.random(rows)
    action = np.where(ad, chance > 0.8, 2 + np.searchsorted([0.6, 0.8], chance))
    since = np.sort((rng.random(rows) * (over / timedelta(microseconds=1))).astype(np.int64))
    return {
        "behavior_id": first_id + rng.permutation(rows),
        "user_id": rng.choice(len(weights), rows, p=weights),
        "domain": np.where(ad, "ad", "content"),
        "action": ACTIONS[action],
        "item_id": (rng.zipf(1.3, rows) - 1) % ITEMS,
        "occurred_at": (since + int(start.timestamp() * 1e6)).astype("datetime64[us]"),
        "ordinal": np.zeros(rows, np.int64),
    }


def make_catalog(connection: Connection) -> None:
    """Write ads and content items."""
    for table, columns, values in (
        ("ads", "ad_id, source_id, name, first_category, second_category, spu, event_at", "'first', {c}, {s}, now()"),
        ("content_items", "content_id, source_id, title, category, spu", "{c}, {s}"),
    ):
        named = values.format(c=f"'category ' || n % {CATEGORIES}", s=f"'product ' || n % {SPUS}")
        query = f"INSERT INTO {table} ({columns}) SELECT n, n, 'A thing with the number ' || n, {named} "
        connection.execute(text(f"{query} FROM generate_series(0, {ITEMS - 1}) n"))
    connection.execute(text("ANALYZE ads, content_items"))


def import_log(engine: Engine, log: dict[str, np.ndarray]) -> None:
    """Stage a log by COPY, and write it as importers do."""
    columns = ", ".join(BEHAVIOR)
    rows = len(log["user_id"])
    with transaction(engine) as connection:
        connection.execute(text(f"CREATE TEMP TABLE staged_behaviors AS SELECT {columns} FROM behaviors WITH NO DATA"))
        connection.execute(text(f"ALTER TABLE staged_behaviors ADD COLUMN {ROW} bigint GENERATED ALWAYS AS IDENTITY"))
        with closing(connection.connection.cursor()) as cursor:
            for first in range(0, rows, CHUNK):
                lines = io.BytesIO()
                part = pa.table({name: pa.array(log[name][first : first + CHUNK]) for name in BEHAVIOR})
                csv.write_csv(part, lines, csv.WriteOptions(include_header=False))
                lines.seek(0)
                cursor.copy_expert(f"COPY staged_behaviors ({columns}) FROM STDIN (FORMAT csv)", lines)
        connection.execute(text("ANALYZE staged_behaviors"))
        staged_rows = Staged(name="staged_behaviors", columns=tuple(BEHAVIOR), rows=rows)
        write_import(connection, behaviors=staged_rows, arrived_at=NOW)
        connection.execute(text("ANALYZE behaviors, user_state"))


def append_day(engine: Engine, day: dict[str, np.ndarray]) -> None:
    """Write a day's behaviors as they arrive: a thousand in a transaction, known from the last one's time on."""
    for first in range(0, len(day["user_id"]), 1000):
        part = {name: day[name][first : first + 1000] for name in BEHAVIOR}
        times = [at.replace(tzinfo=UTC) for at in part["occurred_at"].tolist()]
        values = {name: values.tolist() for name, values in part.items()} | {"occurred_at": times}
        with transaction(engine) as connection:
            append(connection, values, arrived_at=times[-1])


def summarized(url: str, now: datetime, *, connections: int) -> tuple[SummaryCounts, float]:
    """Run the one command; return what it did, and its seconds."""
    began = time.perf_counter()
    counts = summarize(url, now=now, connections=connections)
    return counts, time.perf_counter() - began


def plain_python(engine: Engine, most: int) -> tuple[int, float]:
    """Do the same in Python for the users with an id below `most`; return how many behaviors, and the seconds."""
    summaries: list[Content] = []
    sequences: list[Content] = []
    began, read = time.perf_counter(), 0
    with transaction(engine) as connection:
        rows = connection.execution_options(yield_per=20_000).execute(text(READ), {"most": most, "now": NOW})
        for user, of_user in groupby(rows, key=lambda row: row.user_id):
            known = list(of_user)
            read += len(known)
            of_summary, of_sequences = rows_of(user, known)
            summaries += of_summary
            sequences += of_sequences
    with (
        transaction(engine) as connection,
        staged(connection, interest_summaries, SUMMARY, summaries) as one,
        staged(connection, behavior_sequences, SEQUENCE, sequences) as other,
    ):
        seconds = time.perf_counter() - began
        for made, table, columns in ((one, "interest_summaries", SUMMARY), (other, "behavior_sequences", SEQUENCE)):
            names = ", ".join(columns)
            ours = f"SELECT {names} FROM {table} WHERE user_id < {most} AND event_at <= :now"
            theirs = f"SELECT {names} FROM {made.name}"
            differing = f"SELECT count(*) FROM (({ours} EXCEPT {theirs}) UNION ALL ({theirs} EXCEPT {ours})) AS other"
            assert connection.scalar(text(differing), {"now": NOW}) == 0, f"{table} holds other rows"
    return read, seconds


READ = """
    SELECT b.user_id, b.domain, b.action, b.item_id, b.occurred_at, b.ordinal, b.known_at,
           coalesce(a.second_category, c.category, '') AS category, coalesce(a.spu, c.spu, '') AS spu,
           coalesce(a.name, c.title, '') AS title
    FROM behaviors b
    LEFT JOIN ads a ON b.domain = 'ad' AND a.ad_id = b.item_id
    LEFT JOIN content_items c ON b.domain = 'content' AND c.content_id = b.item_id
    WHERE b.user_id < :most AND b.known_at <= :now ORDER BY b.user_id, b.occurred_at, b.ordinal, b.behavior_id
"""
SUMMARY = (
    *("user_id", "event_at", "newest_at", "categories", "counts", "spus", "spu_counts"),
    *("disliked_categories", "disliked_counts", "disliked_spus", "disliked_spu_counts"),
)
SEQUENCE = (
    *("user_id", "domain", "event_at", "newest_at", "item_ids", "actions", "titles", "occurred_at_s", "ordinals"),
)


def rows_of(user: int, rows: Sequence[Row[Any]]) -> tuple[list[Content], list[Content]]:
    """Return a user's rows of both tables: of every instant at which something came in or left, where it differs."""
    summaries: list[Content] = []
    sequences: list[Content] = []
    before: dict[str, Content] = {}
    leaving = {row: window_start(row.occurred_at, days=-WINDOW_DAYS - 1) for row in rows}
    instants = {row.known_at for row in rows} | {at for row, at in leaving.items() if row.known_at < at <= NOW}
    for at in sorted(instants):
        start = window_start(at, days=WINDOW_DAYS)
        known = [row for row in rows if row.known_at <= at and row.occurred_at >= start]
        liked = [row for row in known if row.action != Action.SKIP]
        skipped = [row for row in known if row.action == Action.SKIP]
        pairs = [ranked(of, name) for of in (liked, skipped) for name in ("category", "spu")]
        content = (known[-1].occurred_at if known else None, *(part for pair in pairs for part in pair))
        if content != before.get("summary"):
            summaries.append((user, at, *content))
            before["summary"] = content
        for domain in ("ad", "content"):
            shown = [row for row in liked if row.domain == domain][-LONGEST:]
            lists = ([getattr(row, name) for row in shown] for name in ("item_id", "action", "title"))
            times = [row.occurred_at.timestamp() for row in shown]
            content = (shown[-1].occurred_at if shown else None, *lists, times, [row.ordinal for row in shown])
            if content != before.get(domain) and (shown or domain in before):
                sequences.append((user, domain, at, *content))
                before[domain] = content
    return summaries, sequences


def ranked(rows: Sequence[Row[Any]], name: str) -> tuple[list[str], list[int]]:
    """Return the names of rows and their counts, most frequent first, then newest; rows are oldest first."""
    counts: Counter[str] = Counter()
    newest: dict[str, datetime] = {}
    for row in rows:
        counts[getattr(row, name)] += 1
        newest[getattr(row, name)] = row.occurred_at
    order = sorted(counts, key=lambda one: (-counts[one], -newest[one].timestamp(), one))[:TOP]
    return order, [counts[one] for one in order]


def timed(run: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
