"""Import of a user's own data: a folder of CSV or Parquet files. docs/data_format.md describes them.

One import is one transaction: a bad value in the last row of the last file leaves the database as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import tee
from pathlib import Path
from typing import Any

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.domain.identity import MAX_ID
from leadre.domain.targeting import EVERYBODY
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.importers.load import ImportCounts, Progress, load
from leadre.store.importers.rows import ColumnRule, find_file, read_rows
from leadre.store.importers.values import (
    choice,
    identity,
    moment,
    name,
    number,
    targeting,
    whole,
    word_list,
    words,
    yes_no,
)

ADS = (
    ColumnRule(name="ad_id", parse=identity),
    ColumnRule(name="name", parse=name),
    ColumnRule(name="ad_type", parse=words, default=""),
    ColumnRule(name="first_category", parse=words, default=""),
    ColumnRule(name="second_category", parse=words, default=""),
    ColumnRule(name="attributes", parse=word_list, default=()),
    ColumnRule(name="advertiser_id", parse=identity, default=(0, "")),
    ColumnRule(name="bid", parse=number(0, 1e6), default=None),
    ColumnRule(name="live", parse=yes_no, default=True),
    ColumnRule(name="targeting", parse=targeting, default=EVERYBODY),
    ColumnRule(name="starts_at", parse=moment, default=None),
    ColumnRule(name="ends_at", parse=moment, default=None),
    ColumnRule(name="budget_exhausted", parse=yes_no, default=False),
    ColumnRule(name="created_at", parse=moment, default=None),
)
USERS = (
    ColumnRule(name="user_id", parse=identity),
    ColumnRule(name="age", parse=whole(0, 150), default=None),
    ColumnRule(name="sex", parse=words, default=""),
    ColumnRule(name="residence", parse=words, default=""),
    ColumnRule(name="education_level", parse=words, default=""),
    ColumnRule(name="occupation", parse=words, default=""),
    ColumnRule(name="consumption_level", parse=words, default=""),
    ColumnRule(name="arpu", parse=number(0, 1e9), default=0.0),
    ColumnRule(name="device", parse=words, default=""),
)
CONTENT_ITEMS = (
    ColumnRule(name="content_id", parse=identity),
    ColumnRule(name="title", parse=words, default=""),
    ColumnRule(name="category", parse=words, default=""),
)
BEHAVIORS = (
    ColumnRule(name="user_id", parse=identity),
    ColumnRule(name="domain", parse=choice(Domain)),
    ColumnRule(name="action", parse=choice(Action)),
    ColumnRule(name="item_id", parse=identity),
    ColumnRule(name="occurred_at", parse=moment),
    ColumnRule(name="ordinal", parse=whole(0, MAX_ID), default=0),
)
IMPRESSIONS = (
    ColumnRule(name="user_id", parse=identity),
    ColumnRule(name="ad_id", parse=identity),
    ColumnRule(name="occurred_at", parse=moment),
    ColumnRule(name="ecpm", parse=number(0, 1e9)),
    ColumnRule(name="clicked", parse=yes_no, default=False),
    ColumnRule(name="converted", parse=yes_no, default=False),
    ColumnRule(name="simulated", parse=yes_no, default=False),
)
FILES = {"ads": ADS, "users": USERS, "content_items": CONTENT_ITEMS, "behaviors": BEHAVIORS, "impressions": IMPRESSIONS}
BID = 1.0
"""Of an ad without one, marked as simulated; `leadre ads price` draws it from a market."""
OPTIONAL_FILES = frozenset({"content_items", "impressions"})


def import_tabular(folder: Path, *, database_url: str, progress: Progress | None = None) -> ImportCounts:
    """Write ads, users, content items, behaviors and impressions from a folder.

    Ads without `created_at`, and all profiles, count as known since the first behavior or impression of the folder.

    Args:
        folder: of `ads`, `users`, `behaviors` and, optionally, `content_items` and `impressions`; .csv or .parquet.
        database_url: the system of record, migrated.
        progress: see `load`.

    Raises:
        InvalidInput: a missing file, an unknown or missing column, or a bad value, with file, row and column;
            nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    paths = {table: find_file(folder, table) for table in FILES}
    for table, path in paths.items():
        if path is None and table not in OPTIONAL_FILES:
            raise InvalidInput(f"there is neither {table}.csv nor {table}.parquet", source=str(folder))

    def rows(table: str) -> Iterator[dict[str, Any]]:
        path = paths[table]
        return iter(()) if path is None else read_rows(path, FILES[table])

    # Before the first write: this reads the two long files once more, and so finds their bad rows in seconds.
    first = min(row["occurred_at"] for table in ("behaviors", "impressions") for row in rows(table))
    users, users_again = tee(rows("users"))  # read in step
    return load(
        database_url,
        ads=(_ad(row, first, str(paths["ads"]), n) for n, row in enumerate(rows("ads"), 1)),
        profiles=(Profile(**{**row, "user_id": row["user_id"][0]}) for row in users),
        content_items=(
            _content_item(row, str(paths["content_items"]), n) for n, row in enumerate(rows("content_items"), 1)
        ),
        behaviors=(
            Behavior(**{**row, "user_id": row["user_id"][0], "item_id": row["item_id"][0]}) for row in rows("behaviors")
        ),
        impressions=(
            Impression(**{**row, "user_id": row["user_id"][0], "ad_id": row["ad_id"][0]}) for row in rows("impressions")
        ),
        profiles_at=first,
        source_ids=(row["user_id"][1] for row in users_again),
        files={table: str(path) for table, path in paths.items()},
        progress=progress,
    )


def _ad(row: dict[str, Any], first: datetime, source: str, position: int) -> Ad:
    starts_at, ends_at = row["starts_at"], row["ends_at"]
    if starts_at is not None and ends_at is not None and not starts_at < ends_at:
        problem = f"the end, {ends_at.isoformat()}, is not after starts_at, {starts_at.isoformat()}"
        raise InvalidInput(problem, source=source, row=position, column="ends_at")
    ad_id, source_id = row["ad_id"]
    known = {"ad_id": ad_id, "source_id": source_id, "advertiser_id": row["advertiser_id"][0]}
    if row["bid"] is None:
        known |= {"bid": BID, "bid_simulated": True}
    return Ad(**{**row, **known, "created_at": row["created_at"] or first})


def _content_item(row: dict[str, Any], source: str, position: int) -> ContentItem:
    content_id, source_id = row["content_id"]
    if not row["title"] and not row["category"]:
        raise InvalidInput("title and category are both empty; an item needs one", source=source, row=position)
    return ContentItem(content_id=content_id, source_id=source_id, title=row["title"], category=row["category"])
