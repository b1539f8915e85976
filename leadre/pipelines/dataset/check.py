"""Leakage: does a training set know what it is to foretell? And what of it is neutral, and what a hit is worth.

LEADRE §5.3. Each finding is one sentence; a set without findings has lists made before their impressions, by releases
that had seen neither, of behaviors before them, labels that are no features, and every row of every day once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from leadre.evaluation.bootstrap import Interval, shares_of_rows
from leadre.pipelines.dataset.days import (
    LABELS,
    Description,
    bounds_of,
    days_there,
    path_of,
    read_about,
    read_description,
    rows_of,
    unfinished_days,
)
from leadre.store.past.labels import SCHEMA

NEUTRAL = ("no list", "expired", "empty list", "unreadable list")
"""Reasons for which every feature of a row is neutral."""
GROUPS = 20_000
"""Users are drawn in so many groups at most (ours)."""
_READ = ["impression_id", "user_id", "requested_at", "clicked", "generated_at_s", "behavior_at_s", "release", "hit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is in a training set.

    Args:
        rows: how many.
        neutral: rows by the reason why some or all of their features are neutral.
        clicked: share of the clicked rows whose ad was retrieved, with its interval over users.
        not_clicked: of the others.
        difference: of the two.
        findings: what is wrong, a sentence each.
    """

    rows: int
    neutral: dict[str, int]
    clicked: Interval
    not_clicked: Interval
    difference: Interval
    findings: tuple[str, ...]

    @property
    def neutral_share(self) -> float:
        """Share of the rows that are neutral in every feature."""
        return sum(self.neutral.get(reason, 0) for reason in NEUTRAL) / max(1, self.rows)


def check(folder: Path, *, seed: int = 0) -> Report:
    """Read a training set whole, a day at a time, and say what is in it and what is wrong.

    Args:
        folder: of the training set.
        seed: of the intervals' draws.

    Raises:
        ConfigError: there is none.
    """
    description = read_description(folder)
    there = [day for day in days_there(folder) if description.since <= day < description.until]
    findings = [*_of_features(description), *_of_days(folder, description, there)]
    counts, rows = Counter[str](), 0
    hits = np.zeros((GROUPS, 2, 2))  # by group of users and label: rows, and hits
    for day, table in _sound(folder, there, description, findings):
        about = read_about(path_of(folder, day))
        rows += table.num_rows
        counts.update(about.neutral)
        if about.rows != table.num_rows:
            findings.append(f"{day}: {table.num_rows:,} rows, and it says it has {about.rows:,}")
        findings += [f"{day}: {said}" for said in _of_rows(day, table, about.releases)]
        group = table["user_id"].to_numpy() % GROUPS
        label = table["clicked"].to_numpy().astype(np.int64)
        np.add.at(hits, (group, label, 0), 1)
        np.add.at(hits, (group, label, 1), table["hit"].to_numpy())
    not_clicked, clicked, difference = shares_of_rows(hits[..., 1], hits[..., 0], seed=seed)
    return Report(
        rows=rows,
        neutral=dict(counts),
        clicked=clicked,
        not_clicked=not_clicked,
        difference=difference,
        findings=tuple(findings),
    )


def _of_features(description: Description) -> Iterator[str]:
    for name in description.features:
        if name in LABELS or name in SCHEMA.names:
            yield f"{name!r} is among the features, and is a label or an id"


def _of_days(folder: Path, description: Description, there: list[date]) -> Iterator[str]:
    if missing := sorted(set(description.days) - set(there)):
        yield f"{len(missing)} days are missing, from {missing[0]} to {missing[-1]}"
    for name in unfinished_days(folder):
        yield f"{name} is what a killed run has left: run `leadre dataset ranking` again, or remove it"


def _sound(
    folder: Path, there: list[date], description: Description, findings: list[str]
) -> Iterator[tuple[date, pa.Table]]:
    """Yield the days that can be read; of the others, say why not."""
    for day in there:
        try:
            names = pq.read_schema(path_of(folder, day)).names
        except (pa.ArrowException, OSError):
            findings.append(f"{day}: the file cannot be read")
            continue
        expected = [*SCHEMA.names, "neutral", *description.features]
        if extra := sorted(set(names) - set(expected)):
            findings.append(f"{day}: columns that are no features: {', '.join(extra)}")
        if lost := sorted(set(expected) - set(names)):
            findings.append(f"{day}: columns are missing: {', '.join(lost)}")
            continue
        yield from rows_of(folder, [day], _READ)


def _of_rows(day: date, table: pa.Table, releases: dict[str, str | None]) -> Iterator[str]:
    requested = table["requested_at"].cast(pa.int64()).to_numpy() / 1e6
    start, end = (at.timestamp() for at in bounds_of(day))
    if outside := int(((requested < start) | (requested >= end)).sum()):
        yield f"{outside:,} rows are of another day"
    if twice := table.num_rows - len(np.unique(table["impression_id"].to_numpy())):
        yield f"{twice:,} rows are there twice"
    if late := int((table["generated_at_s"].to_numpy() > requested).sum()):
        yield f"{late:,} rows have a list that was generated after their impression"
    if late := int((table["behavior_at_s"].to_numpy() >= requested).sum()):
        yield f"{late:,} rows have a list made from behaviors at their impression's time or after"
    for name in pc.unique(table["release"]).to_pylist():
        if name == "":
            continue
        of_release = pc.equal(table["release"], name).to_numpy()
        if name not in releases:
            yield f"{int(of_release.sum()):,} rows have lists of release {name!r}, of which the day does not know"
        elif (until := releases[name]) is None:
            yield f"{int(of_release.sum()):,} rows have lists of release {name!r}; what it has seen is not known"
        elif seen := int((requested[of_release] <= datetime.fromisoformat(until).astimezone(UTC).timestamp()).sum()):
            yield f"{seen:,} rows have lists of release {name!r}, which has seen what happened until {until}"
