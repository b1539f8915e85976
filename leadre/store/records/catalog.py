"""The catalog: ads, users, content items. LEADRE §3.1, §4.4.1.

An id is `id_of` of its `source_id`, so that nobody has to ask this catalog on the way in; a row that breaks the rule is
refused. Of two texts with one id (a collision of `stable_id`) the second is refused by name, not mixed with the first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Table, and_, func, not_, or_, select, text, update

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Domain
from leadre.domain.identity import id_of, ids_of, outward
from leadre.domain.targeting import NOBODY, Targeting
from leadre.domain.users import Profile
from leadre.errors import InvalidInput, UnknownAd
from leadre.store.records.bulk import ROW, Staged, merge, staged
from leadre.store.records.tables import ads, behaviors, content_items, impressions, users

logger = logging.getLogger(__name__)

_AD = tuple(name for name in Ad.__dataclass_fields__ if name != "created_at")
_CONTENT_ITEM = tuple(ContentItem.__dataclass_fields__)
_AT_ONCE = 10_000
_PROFILE = tuple(name for name in Profile.__dataclass_fields__ if name != "user_id")

AD_CATEGORY = "coalesce(nullif({table}.second_category, ''), {table}.first_category)"
"""SQL for the category an ad counts under in an interest summary."""

CONTENT_TITLE = "coalesce(nullif({table}.title, ''), {table}.category)"
"""SQL for the title a content item has in a behavior sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLabel:
    """How an item appears in prompts: its title in a behavior sequence, its category and SPU in an interest summary."""

    title: str
    category: str
    spu: str = ""


def upsert_ads(connection: Connection, inventory: Iterable[Ad]) -> int:
    """Write ads; one that is there is replaced. `Ad.created_at` becomes the row's `event_at`.

    Returns:
        How many ads are new or changed.

    Raises:
        InvalidInput: an id or `source_id` twice, an id that is not the one of its `source_id`, or a bad value; with its
            row.
    """
    rows = (
        (*(ad.targeting.plain() if column == "targeting" else getattr(ad, column) for column in _AD), ad.created_at)
        for ad in inventory
    )
    return _upsert(connection, ads, (*_AD, "event_at"), rows)


def upsert_users(
    connection: Connection, profiles: Iterable[Profile], *, event_at: datetime, source_ids: Iterable[str] | None = None
) -> int:
    """Write profiles; one that is there is replaced.

    Args:
        connection: in a transaction.
        profiles: whose `user_id`s differ.
        event_at: since when the profiles are true; a point-in-time join finds them from then on.
        source_ids: the owner's own names of the users, parallel to `profiles`; the decimal `user_id`s by default.

    Returns:
        How many users are new or changed.

    Raises:
        InvalidInput: as `upsert_ads`.
    """
    named = ((p, str(p.user_id)) for p in profiles) if source_ids is None else zip(profiles, source_ids, strict=True)
    rows = ((p.user_id, source_id, event_at, *(getattr(p, column) for column in _PROFILE)) for p, source_id in named)
    return _upsert(connection, users, ("user_id", "source_id", "event_at", *_PROFILE), rows)


def upsert_content_items(connection: Connection, items: Iterable[ContentItem]) -> int:
    """Write content items; one that is there is replaced. Returns and raises as `upsert_ads`."""
    rows = (tuple(getattr(item, column) for column in _CONTENT_ITEM) for item in items)
    return _upsert(connection, content_items, _CONTENT_ITEM, rows)


def read_ads(connection: Connection, *, ad_ids: Collection[int] | None = None) -> list[Ad]:
    """Return the inventory by ascending `ad_id`; only those of `ad_ids` that are known, if it is given."""
    query = select(ads).order_by(ads.c.ad_id)
    if ad_ids is not None:
        query = query.where(ads.c.ad_id.in_([int(ad_id) for ad_id in ad_ids]))
    columns = [column for column in _AD if column not in {"attributes", "targeting"}]
    return [
        Ad(
            **{column: getattr(row, column) for column in columns},
            attributes=tuple(row.attributes),
            targeting=read_targeting(row.targeting),
            created_at=row.event_at,
        )
        for row in connection.execute(query)
    ]


def read_targeting(plain: object) -> Targeting:
    """Return the targeting that a row holds; `NOBODY` when it cannot be read, so that its ads are not shown."""
    try:
        return Targeting.of(plain)
    except InvalidInput as error:
        logger.error("unreadable_targeting", extra={"error": str(error)})
        return NOBODY


def may_be_shown(now: datetime) -> ColumnElement[bool]:
    """Return the SQL condition on ads that may be shown at all now: not paused, with budget left, within schedule."""
    return and_(
        ads.c.live,
        not_(ads.c.budget_exhausted),
        or_(ads.c.starts_at.is_(None), ads.c.starts_at <= now),
        or_(ads.c.ends_at.is_(None), ads.c.ends_at > now),
    )


def live_ad_ids(connection: Connection, *, now: datetime) -> NDArray[np.int64]:
    """Return the ids of the ads that may be shown to those they target, ascending: int64[n]. See `may_be_shown`."""
    ids = connection.scalars(select(ads.c.ad_id).where(may_be_shown(now)).order_by(ads.c.ad_id)).all()
    return np.array(ids, dtype=np.int64)


def refuse_unknown(connection: Connection, source_ids: Collection[int | str]) -> None:
    """Refuse ads that the catalog does not hold.

    Raises:
        UnknownAd: naming the first one as its owner does.
        InvalidInput: what is given is no id.
    """
    wanted = ids_of(source_ids)
    known = set(connection.scalars(select(ads.c.ad_id).where(ads.c.ad_id.in_(wanted))))
    if missing := [name for name, ad_id in zip(source_ids, wanted, strict=True) if ad_id not in known]:
        raise UnknownAd(
            f"ad {missing[0]!r} is not in the catalog ({len(missing)} of {len(wanted)} are not there); import it first"
        )


def set_live(connection: Connection, source_ids: Collection[int | str], *, live: bool) -> int:
    """Pause ads, named as their owner does, or let them run again. Returns how many changed.

    Raises:
        UnknownAd: an ad is not in the catalog; nothing changes.
        InvalidInput: what is given is no id.
    """
    return _set(connection, source_ids, {"live": live})


def set_budget_exhausted(connection: Connection, source_ids: Collection[int | str], *, exhausted: bool) -> int:
    """Say whether ads have run out of budget. Takes, returns and raises as `set_live`."""
    return _set(connection, source_ids, {"budget_exhausted": exhausted})


def set_schedule(
    connection: Connection,
    source_ids: Collection[int | str],
    *,
    starts_at: datetime | None,
    ends_at: datetime | None,
) -> int:
    """Let ads run from `starts_at` until before `ends_at`, aware times; None is no bound. Returns as `set_live`.

    Raises:
        UnknownAd: an ad is not in the catalog; nothing changes.
        InvalidInput: the end is not after the start.
    """
    if starts_at is not None and ends_at is not None and not starts_at < ends_at:
        raise InvalidInput(f"the end, {ends_at.isoformat()}, is not after the start, {starts_at.isoformat()}")
    return _set(connection, source_ids, {"starts_at": starts_at, "ends_at": ends_at})


def _set(connection: Connection, source_ids: Collection[int | str], values: Mapping[str, Any]) -> int:
    refuse_unknown(connection, source_ids)
    differs = or_(*(ads.c[column].is_distinct_from(value) for column, value in values.items()))
    return connection.execute(update(ads).where(ads.c.ad_id.in_(ids_of(source_ids)), differs).values(values)).rowcount


def profiles(connection: Connection, user_ids: Collection[int]) -> dict[int, Profile]:
    """Return the profiles of those of the users that are known."""
    query = select(users.c.user_id, *(users.c[column] for column in _PROFILE))
    query = query.where(users.c.user_id.in_([int(user_id) for user_id in user_ids]))
    return {row.user_id: Profile(**row._mapping) for row in connection.execute(query)}


def row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table of the data set has."""
    tables = (ads, users, content_items, behaviors, impressions)
    return {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def item_labels(
    connection: Connection, domain: Domain, *, item_ids: Collection[int] | None = None
) -> dict[int, ItemLabel]:
    """Return items' titles, categories and SPUs by id, worded exactly as `summaries.write_summaries` words them.

    Args:
        connection: any.
        domain: of the items.
        item_ids: only these; None: all.
    """
    if domain is Domain.AD:
        query = f"SELECT ad_id, name, {AD_CATEGORY.format(table='ads')}, spu FROM ads"  # noqa: S608 - our own words
    else:
        query = f"SELECT content_id, {CONTENT_TITLE.format(table='content_items')}, category, spu FROM content_items"  # noqa: S608
    if item_ids is not None:
        query += f" WHERE {'ad_id' if domain is Domain.AD else 'content_id'} = ANY(:item_ids)"
    rows = connection.execute(text(query), {} if item_ids is None else {"item_ids": [int(it) for it in item_ids]})
    return {item: ItemLabel(title=title, category=category, spu=spu) for item, title, category, spu in rows}


def _upsert(connection: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    key = columns[0]
    with staged(connection, table, columns, _with_honest_ids(rows, columns)) as source:
        _refuse_repeated(connection, source, key)
        _refuse_taken(connection, table, source, key)
        return merge(connection, table, source, key=[key], on_conflict="update")


def _with_honest_ids(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    place = columns.index("source_id")
    for number, row in enumerate(rows, start=1):
        if row[0] != id_of(row[place]):
            problem = (
                f"{row[0]} is not the id of {row[place]!r}; give every row the id that `id_of` makes of its source_id"
            )
            raise InvalidInput(problem, row=number, column=columns[0])
        yield row


def _refuse_repeated(connection: Connection, source: Staged, key: str) -> None:
    query = f"""
        SELECT (array_agg({ROW} ORDER BY {ROW}))[1:2], (array_agg(source_id ORDER BY {ROW}))[1:2]
        FROM {source.name} GROUP BY {key} HAVING count(*) > 1 ORDER BY min({ROW}) LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    if found := connection.execute(text(query)).one_or_none():
        (first, second), (one, other) = found
        problem = f"{outward(other)!r} is already in row {first}; every {key} appears once"
        if one != other:
            problem = f"{other!r} and {one!r} of row {first} have one 64-bit id; rename one of them"
        raise InvalidInput(problem, row=second, column=key)


def _refuse_taken(connection: Connection, table: Table, source: Staged, key: str) -> None:
    query = f"""
        SELECT s.{ROW}, s.source_id, t.source_id
        FROM {source.name} s JOIN {table.name} t ON s.{key} = t.{key} AND s.source_id <> t.source_id
        ORDER BY 1 LIMIT 1
    """  # noqa: S608 - names of our own tables and columns
    if found := connection.execute(text(query)).one_or_none():
        row, new, old = found
        raise InvalidInput(
            f"{new!r} and {old!r}, which the database holds, have one 64-bit id; rename it, or use another database",
            row=row,
            column=key,
        )
