"""Rules of a user's own data: the columns of each table, how their values are read, and where they go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from leadre.domain.behavior import EARLIEST, LATEST_AHEAD, Action, Domain
from leadre.domain.identity import MAX_ID
from leadre.store.importers.tabular.columns import ColumnRule, RowCheck
from leadre.store.importers.tabular.options import ImportOptions
from leadre.store.importers.tabular.rejected import Kind
from leadre.store.importers.tabular.rows import Batch
from leadre.store.importers.tabular.times import TimeReader
from leadre.store.importers.tabular.values import (
    Marked,
    choice,
    cut_words,
    identity,
    name,
    number,
    targeting,
    whole,
    word_list,
    words,
    yes_no,
)
from leadre.store.records.known.staging import event_id, time_word

TIME = pa.timestamp("us", "UTC")
BID = 1.0
"""Of an ad without one, marked as simulated; `leadre ads price` draws it from a market."""
OPTIONAL = frozenset({"content_items", "impressions"})
"""Tables that a folder may lack."""

_ARRAY_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"'})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRules:
    """How a table is read and stored.

    Args:
        columns: of its file.
        kinds: the Arrow type and the database's column of every column of the file, by its name; ids are not here.
        ids: the database's columns of an id and of its text, by the name of the file's column.
        more: columns that are staged and not kept, from name to SQL type.
        derives: names of stored columns that follow from others.
        derived: gives them, and whatever of the others it changes.
        check: what may be wrong with a row as a whole.
    """

    columns: tuple[ColumnRule, ...]
    kinds: Mapping[str, tuple[pa.DataType, str]]
    ids: Mapping[str, tuple[str, str]]
    more: Mapping[str, str] = field(default_factory=dict)
    derives: tuple[str, ...] = ()
    derived: Callable[[Batch, dict[str, pa.Array]], dict[str, pa.Array]] = lambda _, __: {}
    check: RowCheck | None = None

    def stored(self) -> tuple[str, ...]:
        """Return the table's columns that staged rows hold."""
        names = [*(into for _, into in self.kinds.values()), *(name for pair in self.ids.values() for name in pair)]
        return tuple(name for name in (*names, *self.derives) if name not in self.more)

    def staged(self, batch: Batch) -> pa.RecordBatch:
        """Return a batch as it is staged."""
        arrays = {into: batch.columns[name].array(kind) for name, (kind, into) in self.kinds.items()}
        for column, (into, text) in self.ids.items():
            arrays[into] = batch.columns[column].array(pa.int64(), 0)
            arrays[text] = batch.columns[column].array(pa.string(), 1)
        arrays |= self.derived(batch, arrays)
        arrays["part"] = pa.array([batch.part], pa.int32()).take(pa.array([0] * len(batch.rows), pa.int32()))
        arrays["file_row"] = pa.array(batch.rows)
        return pa.RecordBatch.from_pydict(arrays)


def column_names() -> dict[str, tuple[str, ...]]:
    """Return the names of the columns that each table may have in a file."""
    tables = rules_of(ImportOptions(), now=EARLIEST)
    return {table: tuple(rule.name for rule in of.columns) for table, of in tables.items()}


def rules_of(options: ImportOptions, *, now: datetime) -> dict[str, TableRules]:
    """Return the rules of every table, in the order in which they are read; times are `TimeReader`s of this import."""
    text = cut_words if options.long_texts == "cut" else words

    def time() -> TimeReader:
        return TimeReader(unit=options.time_unit, zone=options.time_zone)

    def event_time() -> TimeReader:
        latest = (now + LATEST_AHEAD).astimezone(UTC)
        bounds = f"from {EARLIEST:%Y-%m-%d} to {latest:%Y-%m-%dT%H:%M}Z, a day after now"
        return TimeReader(unit=options.time_unit, zone=options.time_zone, first=EARLIEST, last=latest, bounds=bounds)

    def texts(*columns: str) -> tuple[ColumnRule, ...]:
        return tuple(ColumnRule(name=column, parse=text, default="") for column in columns)

    ads = (
        ColumnRule(name="ad_id", parse=identity),
        ColumnRule(name="name", parse=name(text)),
        *texts("ad_type", "first_category", "second_category", "spu"),
        ColumnRule(name="attributes", parse=_array(word_list(text)), default="{}"),
        ColumnRule(name="advertiser_id", parse=identity, default=(0, "")),
        ColumnRule(name="bid", parse=number(0, 1e6), default=None),
        ColumnRule(name="live", parse=yes_no, default=True),
        ColumnRule(name="targeting", parse=lambda value: json.dumps(targeting(value).plain()), default="{}"),
        ColumnRule(name="starts_at", parse=time(), default=None),
        ColumnRule(name="ends_at", parse=time(), default=None),
        ColumnRule(name="budget_exhausted", parse=yes_no, default=False),
        ColumnRule(name="created_at", parse=time(), default=None),
    )
    profile = ("sex", "residence", "education_level", "occupation", "consumption_level", "device")
    users = (
        ColumnRule(name="user_id", parse=identity),
        ColumnRule(name="age", parse=whole(0, 150), default=None),
        *texts(*profile[:-1]),
        ColumnRule(name="arpu", parse=number(0, 1e9), default=0.0),
        *texts("device"),
    )
    content_items = (ColumnRule(name="content_id", parse=identity), *texts("title", "category", "spu"))
    behaviors = (
        ColumnRule(name="user_id", parse=identity),
        ColumnRule(name="domain", parse=choice(Domain)),
        ColumnRule(name="action", parse=choice(Action)),
        ColumnRule(name="item_id", parse=identity),
        ColumnRule(name="occurred_at", parse=event_time()),
        ColumnRule(name="ordinal", parse=whole(0, MAX_ID), default=0),
    )
    flags = ("clicked", "converted", "simulated")
    impressions = (
        ColumnRule(name="user_id", parse=identity),
        ColumnRule(name="ad_id", parse=identity),
        ColumnRule(name="occurred_at", parse=event_time()),
        ColumnRule(name="ecpm", parse=number(0, 1e9)),
        *(ColumnRule(name=flag, parse=yes_no, default=False) for flag in flags),
    )
    return {
        "ads": TableRules(
            columns=ads,
            kinds=_kinds(pa.string(), "name", "ad_type", "first_category", "second_category", "spu")
            | _kinds(pa.string(), "attributes", "targeting")
            | _kinds(pa.bool_(), "live", "budget_exhausted")
            | _kinds(TIME, "starts_at", "ends_at")
            | {"bid": (pa.float64(), "bid"), "created_at": (TIME, "event_at")},
            ids={"ad_id": ("ad_id", "source_id"), "advertiser_id": ("advertiser_id", "advertiser_text")},
            more={"advertiser_text": "text"},
            derives=("bid_simulated",),
            derived=lambda _, arrays: {
                "bid": pc.fill_null(arrays["bid"], BID),
                "bid_simulated": pc.is_null(arrays["bid"]),
            },
            check=RowCheck(columns=("starts_at", "ends_at"), find=_bad_schedule, blamed="ends_at"),
        ),
        "users": TableRules(
            columns=users,
            kinds=_kinds(pa.string(), *profile) | {"age": (pa.int16(), "age"), "arpu": (pa.float64(), "arpu")},
            ids={"user_id": ("user_id", "source_id")},
        ),
        "content_items": TableRules(
            columns=content_items,
            kinds=_kinds(pa.string(), "title", "category", "spu"),
            ids={"content_id": ("content_id", "source_id")},
            check=RowCheck(columns=("title", "category"), find=_nameless),
        ),
        "behaviors": TableRules(
            columns=behaviors,
            kinds=_kinds(pa.string(), "domain", "action") | _kinds(TIME, "occurred_at") | _kinds(pa.int64(), "ordinal"),
            ids={"user_id": ("user_id", "user_text"), "item_id": ("item_id", "item_text")},
            more={"user_text": "text", "item_text": "text", "content_behavior_id": "bigint"},
            derives=("behavior_id",),
            derived=_behavior_ids if options.unknown_ads == "content" else _ad_behavior_ids,
        ),
        "impressions": TableRules(
            columns=impressions,
            kinds=_kinds(TIME, "occurred_at") | _kinds(pa.float64(), "ecpm") | _kinds(pa.bool_(), *flags),
            ids={"user_id": ("user_id", "user_text"), "ad_id": ("ad_id", "ad_text")},
            more={"user_text": "text", "ad_text": "text"},
            derives=("impression_id",),
            derived=_impression_ids,
        ),
    }


def _kinds(kind: pa.DataType, *columns: str) -> dict[str, tuple[pa.DataType, str]]:
    return {column: (kind, column) for column in columns}


def _array(read: Callable[[object], tuple[str, ...] | Marked]) -> Callable[[object], str | Marked]:
    """Return a parser of lists that gives PostgreSQL's own text of them."""

    def parse(value: object) -> str | Marked:
        found = read(value)
        texts = found.value if isinstance(found, Marked) else found
        literal = "{" + ",".join(f'"{text.translate(_ARRAY_ESCAPES)}"' for text in texts) + "}"
        return Marked(literal, found.mark) if isinstance(found, Marked) else literal

    return parse


def _bad_schedule(starts_at: datetime | None, ends_at: datetime | None) -> tuple[Kind, str] | None:
    if starts_at is None or ends_at is None or starts_at < ends_at:
        return None
    return (
        Kind.BAD_SCHEDULE,
        f"the end, {ends_at.isoformat()}, is not after starts_at, {starts_at.isoformat()}",
    )


def _nameless(title: str, category: str) -> tuple[Kind, str] | None:
    return None if title or category else (Kind.MISSING_VALUE, "title and category are both empty; an item needs one")


def _words(batch: Batch, *columns: str) -> list[list[str]]:
    """Return columns' values as `event_id` takes them."""
    spelled = []
    for column in (batch.columns[of] for of in columns):
        values = [None if value is None else _word(value) for value in column.values]
        spelled.append([values[place] for place in column.index.tolist()])
    return spelled


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return str(value[0])
    return time_word(value) if isinstance(value, datetime) else str(value)


def _ad_behavior_ids(batch: Batch, _: dict[str, pa.Array]) -> dict[str, pa.Array]:
    words = _words(batch, "user_id", "domain", "item_id", "action", "occurred_at", "ordinal")
    ids = pa.array([event_id(*of) for of in zip(*words, strict=True)], pa.int64())
    return {"behavior_id": ids, "content_behavior_id": pa.nulls(len(batch.rows), pa.int64())}


def _behavior_ids(batch: Batch, arrays: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return the behaviors' ids, and what they are if the behavior becomes one of the content domain."""
    users, _, *others = _words(batch, "user_id", "domain", "item_id", "action", "occurred_at", "ordinal")
    content = [Domain.CONTENT.value] * len(users)
    others_ids = [event_id(*of) for of in zip(users, content, *others, strict=True)]
    return _ad_behavior_ids(batch, arrays) | {"content_behavior_id": pa.array(others_ids, pa.int64())}


def _impression_ids(batch: Batch, _: dict[str, pa.Array]) -> dict[str, pa.Array]:
    words = _words(batch, "user_id", "ad_id", "occurred_at")
    return {"impression_id": pa.array([event_id(*of) for of in zip(*words, strict=True)], pa.int64())}
