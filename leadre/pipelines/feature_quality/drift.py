"""Drift: the features of the day beside those of a training set, or of the week before.

LEADRE §5.3. A ranker learned what the features mean in one week; when they mean something else the next, it is wrong
without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import LIST_TTL_S, NEUTRAL, USER_NEUTRAL, item_match, unpack
from leadre.derivation.user_side import user_numbers
from leadre.errors import InvalidInput
from leadre.evaluation.drift import drift
from leadre.pipelines.feature_quality.figures import Figure
from leadre.store.quality import samples
from leadre.store.quality.shown import shown, target_facts

if TYPE_CHECKING:
    from sqlalchemy import Connection

Columns = dict[str, NDArray[Any]]

DAY, WEEK = timedelta(days=1), timedelta(days=7)
USERS_OF_ROWS = 5
"""One in so many of the sample's users is asked for impressions (ours): each has several."""
PIECES = 64
"""Row groups of a training set that are read at most, spread over all its days (ours)."""
USER_SIDE = tuple(
    name for name, value in USER_NEUTRAL.items() if isinstance(value, int | float) and not name.endswith("_at_s")
)
"""The user-side features that are numbers; times always move."""
ITEM_SIDE = tuple(NEUTRAL)
FEATURES = (*USER_SIDE, *ITEM_SIDE)

_MEND = (
    "look what changed (release, inventory, a source of behaviors); train the ranker on newer rows, or go back: "
    "`leadre release rollback`"
)


def drift_figures(
    connection: Connection,
    *,
    now: datetime,
    reference: Columns | None,
    sample: int,
    max_psi: float,
    min_rows: int,
) -> tuple[list[Figure], list[str]]:
    """Return the stability index of every feature that is a number, and what was compared, in words.

    Rows are impressions, each with the list that counted when it was made. Without a training set the user side is
    compared list by list instead, so that it needs no impressions.

    Args:
        connection: any.
        now: the end of the day.
        reference: rows to compare with, as `read_training_set` gives them; None takes those of the week before.
        sample: users looked at.
        max_psi: bound of the index.
        min_rows: rows of either side below which a feature is not judged.
    """
    day, week = now - DAY, now - DAY - WEEK
    users = samples.changed_users(connection, since=day, size=sample)
    current = _rows(connection, users[: sample // USERS_OF_ROWS], after=day, until=now)
    if reference is not None:
        against = f"{_length(reference, FEATURES):,} rows of the training set"
    else:
        current |= _lists(connection, users, after=day, until=now)
        users = samples.changed_users(connection, since=week, size=sample)
        rows = _rows(connection, users[: sample // USERS_OF_ROWS], after=week, until=day)
        reference = rows | _lists(connection, users, after=week, until=day)
        against = f"{_length(reference, ITEM_SIDE):,} impressions and {_length(reference):,} lists of the week before"
    said = (
        f"{_length(current, ITEM_SIDE):,} impressions and {_length(current):,} lists of the last day, beside {against}"
    )
    figures = []
    for name in FEATURES:
        counts = [len(columns.get(name, ())) for columns in (current, reference)]
        index = drift(reference[name], current[name]) if min(counts) >= max(min_rows, 1) else None
        figures.append(
            Figure(
                name="psi",
                of={"feature": name},
                value=index,
                at_most=max_psi,
                mend=_MEND,
                note="" if index is not None else f"{counts[0]:,} beside {counts[1]:,} rows; {min_rows:,} are needed",
            )
        )
    return figures, [said]


def read_training_set(folder: Path, *, rows: int) -> dict[str, NDArray[np.float64]]:
    """Read a sample of a training set's `FEATURES`: rows at even distances of row groups at even distances.

    Args:
        folder: of Parquet files, at any depth, whose columns are called as the features; some may be missing. What
            begins with a dot or an underscore is none of it.
        rows: about how many, at most.

    Raises:
        InvalidInput: no Parquet file, one that cannot be read, or none of the features.
    """
    import pyarrow as pa
    from pyarrow import parquet

    hidden = (".", "_")  # days under way, exported sources
    files = [
        path
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(hidden) for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise InvalidInput(f"{folder} holds no Parquet file; `leadre dataset ranking` writes a training set")
    chosen = files[:: -(-len(files) // PIECES)]
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for path in chosen:
        try:
            with parquet.ParquetFile(path) as file:
                groups = range(file.num_row_groups)
                some = groups[:: -(-len(groups) * len(chosen) // PIECES)]
                known = [name for name in FEATURES if name in file.schema_arrow.names]
                quota = max(1, rows // (len(chosen) * max(len(some), 1)))
                for group in some:
                    table = file.read_row_group(group, columns=known)
                    every = max(1, table.num_rows // quota)
                    for name in known:
                        values = table.column(name).to_numpy().astype(np.float64)
                        parts.setdefault(name, []).append(values[::every])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidInput(f"cannot be read as a training set: {error}", source=str(path)) from error
    if not parts:
        raise InvalidInput(f"has none of the columns {', '.join(FEATURES)}", source=str(chosen[0]))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _rows(connection: Connection, user_ids: NDArray[np.int64], *, after: datetime, until: datetime) -> Columns:
    """Return the features of the users' impressions, a row each: item-side and user-side."""
    seen = shown(connection, user_ids, after=after, until=until, ttl=timedelta(seconds=LIST_TTL_S))
    if not seen["ad_id"]:
        return dict.fromkeys(FEATURES, np.empty(0))
    facts = target_facts(connection, seen["ad_id"], seen["request_time_s"])
    records = {record: place for place, record in enumerate(dict.fromkeys(seen["retrieved_list"]))}
    numbers = _numbers(list(records))
    list_of_row = np.array([records[record] for record in seen["retrieved_list"]], dtype=np.int64)
    matched = item_match({**seen, **facts})
    return {
        **{name: np.asarray(values) for name, values in matched.items()},
        **{name: values[list_of_row] for name, values in numbers.items()},
    }


def _lists(connection: Connection, user_ids: NDArray[np.int64], *, after: datetime, until: datetime) -> Columns:
    """Return the user-side features of lists, the newest of each user."""
    return _numbers(samples.newest_lists(connection, user_ids, after=after, until=until).records)


def _numbers(records: Sequence[bytes | None]) -> Columns:
    """Return the user-side features that are numbers, of lists that counted when they were looked up."""
    lists = unpack(records)
    numbers = user_numbers(lists, lists.present & (lists.counts > 0))
    return {name: numbers[name] for name in USER_SIDE}


def _length(columns: Columns, names: Sequence[str] = USER_SIDE) -> int:
    return max((len(columns[name]) for name in names if name in columns), default=0)
