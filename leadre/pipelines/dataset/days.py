"""A training set on disk: a folder of days, each whole or absent, and what each says of itself. LEADRE §5.3.

`day=2025-05-01/part-0.parquet` has the rows of that day (UTC). A day is written under another name and then renamed;
what it says of itself (rows, releases, neutral rows by reason) is in the metadata of its file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from leadre.errors import ConfigError

FORMAT = 1
MANIFEST, PART = "dataset.json", "part-0.parquet"
LABELS = ("clicked", "converted", "ecpm")
"""What a ranker is to foretell."""
_ABOUT = b"leadre"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a training set is: days from `since` until before `until`, features in their order.

    Args:
        since: the first day.
        until: the day after the last.
        features: names, in the order of the files.
    """

    since: date
    until: date
    features: tuple[str, ...]

    @property
    def days(self) -> list[date]:
        """Return all days."""
        return [self.since + timedelta(days=n) for n in range((self.until - self.since).days)]


@dataclass(slots=True, kw_only=True)
class About:
    """What a day says of itself.

    Args:
        rows: how many it has.
        neutral: rows by the reason why some or all features are neutral.
        releases: those whose lists it holds, each with until when it had seen what happened; None: unknown.
    """

    rows: int = 0
    neutral: dict[str, int] = field(default_factory=dict)
    releases: dict[str, str | None] = field(default_factory=dict)


def describe(folder: Path, wanted: Description) -> Description:
    """Note what a training set is; one that is there is continued.

    Returns:
        What it is: all days ever asked for.

    Raises:
        ConfigError: there is one with other features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        known = read_description(folder)
        if known.features != wanted.features:
            raise ConfigError(
                f"{folder} holds a training set of {len(known.features)} other features; write this one elsewhere"
            )
        wanted = Description(
            since=min(known.since, wanted.since), until=max(known.until, wanted.until), features=known.features
        )
    plain = {
        "format": FORMAT,
        "since": wanted.since.isoformat(),
        "until": wanted.until.isoformat(),
        "labels": LABELS,
        "features": wanted.features,
    }
    unfinished = folder / f".{MANIFEST}"
    unfinished.write_text(json.dumps(plain, indent=1))
    unfinished.replace(folder / MANIFEST)
    return wanted


def read_description(folder: Path) -> Description:
    """Return what a training set is.

    Raises:
        ConfigError: there is none, or it is of another format.
    """
    try:
        plain = json.loads((folder / MANIFEST).read_text())
        if plain["format"] != FORMAT:
            raise ConfigError(f"{folder} is a training set of format {plain['format']}, this version reads {FORMAT}")
        return Description(
            since=date.fromisoformat(plain["since"]),
            until=date.fromisoformat(plain["until"]),
            features=tuple(plain["features"]),
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        raise ConfigError(f"{folder} holds no training set: `leadre dataset ranking` writes one") from None


def path_of(folder: Path, day: date) -> Path:
    """Return where a day's rows are."""
    return folder / f"day={day.isoformat()}" / PART


def days_there(folder: Path) -> list[date]:
    """Return the days that are written."""
    return sorted(
        date.fromisoformat(path.parent.name.removeprefix("day=")) for path in folder.glob(f"day=????-??-??/{PART}")
    )


def read_about(path: Path) -> About:
    """Return what a day says of itself; nothing of a file that is not ours."""
    metadata = pq.read_metadata(path).metadata or {}
    return About(**json.loads(metadata.get(_ABOUT, b"{}")))


def bounds_of(day: date) -> tuple[datetime, datetime]:
    """Return a day's first instant and its end."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


@contextmanager
def writing(folder: Path, day: date, schema: pa.Schema, about: About) -> Iterator[Any]:
    """Give what writes a day's tables; the day is there when the block ends, and as it was when an exception leaves it.

    Args:
        folder: of the training set.
        day: which.
        schema: of its tables.
        about: filled within the block.
    """
    place = path_of(folder, day).parent
    unfinished = folder / f".{place.name}"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir(parents=True)
    try:
        with pq.ParquetWriter(unfinished / PART, schema, compression="zstd") as writer:
            yield writer
            writer.add_key_value_metadata({_ABOUT: json.dumps(asdict(about)).encode()})
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def unfinished_days(folder: Path) -> list[str]:
    """Return the names of what a killed run has left."""
    return sorted(path.name for path in folder.glob(".day=*"))


def rows_of(folder: Path, days: Iterable[date], columns: list[str]) -> Iterator[tuple[date, pa.Table]]:
    """Yield each day's rows, some of their columns."""
    for day in days:
        yield day, pq.read_table(path_of(folder, day), columns=columns, partitioning=None)
