"""Import of Amazon reviews (2014, 5-core) as ads and conversions. LEADRE §5.1's public stand-in.

Items are ads, reviews are conversions; reviews by the same people in another department are the content domain.
What the data lacks is filled by rule, not by guess: see `import_amazon`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import stable_id
from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.store.importers.load import ImportCounts, Progress, load
from leadre.store.importers.tabular.values import MAX_NAME, clean, shown

BID = 1.0
"""The data has no bids: every ad gets this one, marked as simulated; `leadre ads price` draws them from a market."""


def import_amazon(
    folder: Path,
    *,
    database_url: str,
    now: datetime,
    content_folder: Path | None = None,
    progress: Progress | None = None,
) -> ImportCounts:
    """Write one department as the ad domain and, if given, another as the content domain.

    Ads: the name is the title, or else the keyphrase, or else the ASIN, cut to 256 characters; type "product"; first
    and second level are the first two categories (empty where there are fewer); attributes are `brand_X` and the deeper
    categories; the advertiser is the brand (0 without one); the bid is 1,
    simulated. Content items count under their second
    category, as the first is the department itself; their action is `watch`. Users have no profile. A user's
    reviews keep the file's order: it is their `ordinal`, and a time before the user's previous row's is raised to that.

    Args:
        folder: `items.jsonl` (item_id, original_id, title, keyphrase, brand, categories) and `interactions.tsv`
            (user_id, item_id, timestamp in Unix seconds; each user's rows in order).
        database_url: the system of record, migrated.
        now: when the import takes place: what is settled already changes from then on only.
        content_folder: `content_items.jsonl` (content_id, title, categories) and `content_events.tsv` (user_id,
            content_id, timestamp).
        progress: see `load`.

    Raises:
        InvalidInput: a missing file or a bad row, with file and row; nothing was written.
        Unavailable: PostgreSQL does not answer.
    """
    items, interactions = folder / "items.jsonl", folder / "interactions.tsv"
    first, users = None, dict[int, None]()
    for user_id, _, occurred_at in _events(interactions, "item_id"):
        users[user_id] = None
        first = occurred_at if first is None else min(first, occurred_at)
    if first is None:
        raise InvalidInput("there are no rows below the header", source=str(interactions))

    def behaviors() -> Iterator[Behavior]:
        yield from _behaviors(interactions, "item_id", domain=Domain.AD, action=Action.CONVERSION)
        if content_folder is not None:
            events = content_folder / "content_events.tsv"
            yield from _behaviors(events, "content_id", domain=Domain.CONTENT, action=Action.WATCH)

    contents = content_folder / "content_items.jsonl" if content_folder is not None else None
    return load(
        database_url,
        ads=_ads(items, created_at=first),
        profiles=(Profile(user_id=user_id) for user_id in users),
        content_items=_content_items(contents) if contents is not None else (),
        behaviors=behaviors(),
        impressions=(),
        profiles_at=first,
        arrived_at=now,
        files={
            "ads": str(items),
            "content_items": str(contents),
            "behaviors": "interactions.tsv, then content_events.tsv",
        },
        progress=progress,
    )


def _ads(path: Path, *, created_at: datetime) -> Iterator[Ad]:
    for row, item in _objects(path):
        ad_id, categories = _whole(item.get("item_id"), path, row, "item_id"), _categories(item, path, row)
        original_id = _text(item, "original_id", path, row) or str(ad_id)
        brand = _text(item, "brand", path, row)
        name = _text(item, "title", path, row) or _text(item, "keyphrase", path, row) or original_id
        yield Ad(
            ad_id=ad_id,
            source_id=str(ad_id),
            name=name[:MAX_NAME],
            ad_type="product",
            first_category=categories[0] if categories else "",
            second_category=categories[1] if len(categories) > 1 else "",
            attributes=((f"brand_{brand}",) if brand else ()) + categories[2:],
            advertiser_id=stable_id(brand) if brand else 0,
            bid=BID,
            bid_simulated=True,
            created_at=created_at,
        )


def _content_items(path: Path) -> Iterator[ContentItem]:
    for row, item in _objects(path):
        content_id, categories = _whole(item.get("content_id"), path, row, "content_id"), _categories(item, path, row)
        yield ContentItem(
            content_id=content_id,
            source_id=str(content_id),
            title=_text(item, "title", path, row)[:MAX_NAME],
            category=categories[min(1, len(categories) - 1)] if categories else "",
        )


def _behaviors(path: Path, item: str, *, domain: Domain, action: Action) -> Iterator[Behavior]:
    newest: dict[int, datetime] = {}
    for position, (user_id, item_id, occurred_at) in enumerate(_events(path, item)):
        newest[user_id] = max(occurred_at, newest.get(user_id, occurred_at))
        yield Behavior(
            user_id=user_id,
            domain=domain,
            action=action,
            item_id=item_id,
            occurred_at=newest[user_id],
            ordinal=position,
        )


def _events(path: Path, item: str) -> Iterator[tuple[int, int, datetime]]:
    """Yield (user id, item id, time) in the file's order."""
    columns = ["user_id", item, "timestamp"]
    with _open(path) as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if (header := next(lines, None)) != columns:
            raise InvalidInput(f"the header is {shown(header)}, expected {columns}", source=str(path))
        for row, line in enumerate(lines, start=1):
            if len(line) != len(columns):
                raise InvalidInput(
                    f"the row has {len(line)} columns, expected {len(columns)}", source=str(path), row=row
                )
            user_id, item_id, seconds = (
                _whole(value, path, row, column) for value, column in zip(line, columns, strict=True)
            )
            try:
                occurred_at = datetime.fromtimestamp(seconds, UTC)
            except (OverflowError, ValueError, OSError):
                problem = f"{seconds} is not a time in Unix seconds"
                raise InvalidInput(problem, source=str(path), row=row, column="timestamp") from None
            yield user_id, item_id, occurred_at


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(path) as file:
        for row, line in enumerate(file, start=1):
            try:
                item = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"the line is not JSON: {error.msg}", source=str(path), row=row) from None
            if not isinstance(item, dict):
                raise InvalidInput("the line is not a JSON object", source=str(path), row=row)
            yield row, item


def _open(path: Path) -> Any:
    if not path.is_file():
        raise InvalidInput("the file does not exist; look at the folder you gave", source=str(path))
    return path.open(encoding="utf-8", newline="")


def _whole(value: object, path: Path, row: int, column: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidInput(f"{shown(value)} is not a whole number from 0", source=str(path), row=row, column=column)
    return value


def _text(item: dict[str, Any], column: str, path: Path, row: int) -> str:
    value = item.get(column) or ""
    if not isinstance(value, str):
        raise InvalidInput(f"{shown(value)} is not a text", source=str(path), row=row, column=column)
    return clean(value)


def _categories(item: dict[str, Any], path: Path, row: int) -> tuple[str, ...]:
    value = item.get("categories") or []
    if not isinstance(value, list) or not all(isinstance(category, str) for category in value):
        raise InvalidInput(f"{shown(value)} is not a list of texts", source=str(path), row=row, column="categories")
    return tuple(clean(category) for category in value)
