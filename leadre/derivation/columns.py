"""Feast's on-demand views as it calls them: columns of Python values in, columns of Python values out. LEADRE §5.3.

Feast gives lists and None online, arrays and NaN in the point-in-time join, and random junk when the views are applied.
What cannot be read counts as missing; nothing here raises on bad data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.item_match import match
from leadre.derivation.list_record import unpack
from leadre.derivation.lists import Lists
from leadre.derivation.neutral import LIST_TTL_S
from leadre.derivation.targets import MOST_CODE, Shape, Targets, ad_keys
from leadre.derivation.user_side import directions, user_columns

Columns = Mapping[str, Sequence[Any]]


def retrieved_ad_features(columns: Columns, *, ttl_s: float = LIST_TTL_S) -> dict[str, list[Any]]:
    """Return the user-side features of n rows: n values for every name in `USER_NEUTRAL`.

    Args:
        columns: n values of `retrieved_list`, records of lists, and of `request_time_s`, Unix times; a missing column
            is one of None.
        ttl_s: a list older than this is absent, and so is one generated after the request.
    """
    rows = _rows(columns)
    lists, list_of_row = _lists(_column(columns, "retrieved_list", rows))
    asked = _floats(_column(columns, "request_time_s", rows))
    return user_columns(lists, list_of_row=list_of_row, request_time_s=asked, ttl_s=ttl_s)


def item_match(columns: Columns, *, ttl_s: float = LIST_TTL_S) -> dict[str, list[Any]]:
    """Return the match scores of n target ads, each with its user's list: n numbers for every name in `NEUTRAL`.

    Args:
        columns: n values each; a missing column is one of None. The target: `ad_id`, and what its index says of it:
            `sid`, `embedding` [width], `indexed_first_category`, `indexed_second_category`, `indexed_advertiser_id`,
            `ad_index_version`. The list: `retrieved_list`, a record. The request: `request_time_s`, Unix seconds.
        ttl_s: a list older than this is absent, and so is one generated after the request.
    """
    rows = _rows(columns)
    lists, list_of_row = _lists(_column(columns, "retrieved_list", rows))
    found = match(
        lists,
        targets_of(columns, rows),
        list_of_row=list_of_row,
        ad_of_row=_integers(_column(columns, "ad_id", rows), missing=-1),
        target_of_row=np.arange(rows),
        request_time_s=_floats(_column(columns, "request_time_s", rows)),
        ttl_s=ttl_s,
    )
    return {name: values.tolist() for name, values in found.items()}


def _rows(columns: Columns) -> int:
    return max((len(column) for column in columns.values()), default=0)


def _column(columns: Columns, name: str, rows: int) -> Sequence[Any]:
    return columns[name] if name in columns else [None] * rows


def _lists(records: Sequence[Any]) -> tuple[Lists, NDArray[np.int64]]:
    """Read each distinct record once; the second result names the list of every row."""
    numbers: dict[bytes | None, int] = {}
    list_of_row = [
        numbers.setdefault(bytes(it) if isinstance(it, (bytes, bytearray, memoryview)) else None, len(numbers))
        for it in records
    ]
    return unpack(numbers), np.array(list_of_row, dtype=np.int64)


def targets_of(columns: Columns, rows: int) -> Targets:
    """Return the target of each row, from the columns that `item_match` takes of it."""
    sids = [_codes(sid) if isinstance(sid, str) else () for sid in _column(columns, "sid", rows)]
    vectors = [_vector(vector) for vector in _column(columns, "embedding", rows)]
    versions = [it if isinstance(it, str) else "" for it in _column(columns, "ad_index_version", rows)]
    shapes: dict[Shape, int] = {}
    shape_of_ad = [
        shapes.setdefault(Shape(version, len(sid), len(vector)), len(shapes))
        for version, sid, vector in zip(versions, sids, vectors, strict=True)
    ]
    levels, widths = np.array([shape[1:] for shape in shapes] or [(0, 0)]).T
    codes = np.zeros((rows, levels.max()), dtype=np.int64)
    pointing = np.zeros((rows, widths.max()), dtype=np.int8)
    of_shape = np.array(shape_of_ad, dtype=np.int64)
    for number, shape in enumerate(shapes):
        chosen = np.flatnonzero(of_shape == number)
        codes[chosen, : shape.levels] = [sids[row] for row in chosen.tolist()]
        pointing[chosen, : shape.width] = directions(np.array([vectors[row] for row in chosen.tolist()], np.float32))
    names: dict[str, int] = {}
    first, second = (
        [names.setdefault(it, len(names)) if isinstance(it, str) and it else -1 for it in _column(columns, name, rows)]
        for name in ("indexed_first_category", "indexed_second_category")
    )
    keys = ad_keys(
        codes,
        levels=levels[of_shape] if rows else 0,
        first_categories=np.array(first, dtype=np.int64),
        second_categories=np.array(second, dtype=np.int64),
        advertiser_ids=_integers(_column(columns, "indexed_advertiser_id", rows), missing=0),
    )
    return Targets(
        shapes=tuple(shapes) or (Shape("", 0, 0),),
        shape_of_ad=None if len(shapes) <= 1 else of_shape,
        keys=np.ascontiguousarray(keys.T),
        category_numbers=names,
        codes=codes,
        directions=pointing,
    )


@lru_cache(maxsize=2**16)
def _codes(sid: str) -> tuple[int, ...]:
    """Read `<a_51, b_10, …>`; empty for any other text, or one with a code that no list record holds."""
    try:
        codes = tuple(int(part.partition("_")[2]) for part in sid.removeprefix("<").removesuffix(">").split(", "))
    except ValueError:
        return ()
    return codes if all(0 <= code <= MOST_CODE for code in codes) else ()


def _vector(value: Any) -> Sequence[float]:
    """Return the numbers of an embedding; none when it is no list of numbers."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return ()
    return value if all(isinstance(number, (int, float)) for number in value) else ()


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([it if isinstance(it, (int, float, np.number)) else np.nan for it in values], dtype=np.float64)


def _integers(values: Sequence[Any], *, missing: int) -> NDArray[np.int64]:
    """Return whole numbers; `missing` for what is none, or negative. pandas turns a column with holes into floats."""
    read = [_integer(it) for it in values]
    return np.array([it if 0 <= it < 2**63 else missing for it in read], dtype=np.int64)


def _integer(value: Any) -> int:
    if isinstance(value, (int, np.integer)):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else -1
