"""The join: what was stored of rows at their times, asked of Feast. LEADRE §5.3.

List records are joined to (user, time), an ad's facts to (ad, time), and each different pair is asked for once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import text

from leadre.derivation import LIST_TTL_S, Lists, unpack
from leadre.derivation.lists import living
from leadre.errors import FeatureRowMismatch
from leadre.store.records.database import transaction

if TYPE_CHECKING:
    from feast import FeatureStore
    from sqlalchemy import Engine

LIST = ("retrieved_ads:retrieved_list",)
INDEXED = (
    *("sid", "embedding", "ad_index_version"),
    *("indexed_first_category", "indexed_second_category", "indexed_advertiser_id"),
)
CATALOG = ("first_category", "second_category", "advertiser_id", "bid")
AD = (*(f"ad_index:{name}" for name in INDEXED), *(f"ad_features:{name}" for name in CATALOG))
"""The stored features that a ranker's rest on."""
SCHEMA = "feast_registry"
"""Where Feast's own scratch tables are, and ours."""
_ROW, _TIME = "leadre_row", pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """What was stored of R rows at their times.

    Args:
        lists: U different lists; absent where a user had none within its ttl.
        list_of_row: int64[R], 0 to U - 1.
        ad_ids: int64[R].
        requested_at_s: float64[R], Unix seconds.
        ads: R rows of `AD`'s features; null where nothing was known of the ad.
    """

    lists: Lists
    list_of_row: NDArray[np.int64]
    ad_ids: NDArray[np.int64]
    requested_at_s: NDArray[np.float64]
    ads: pa.Table

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows have a list that counts: neither absent nor empty, of no more than its ttl, bool[R]."""
        alive, _ = living(self.lists, self.list_of_row, request_time_s=self.requested_at_s, ttl_s=LIST_TTL_S)
        return alive


def stored_at(
    store: FeatureStore,
    database: Engine | None,
    *,
    user_ids: NDArray[np.int64],
    ad_ids: NDArray[np.int64],
    requested_at_us: NDArray[np.int64],
) -> Stored:
    """Join what is stored to rows, each as of its own time; rows may share all three.

    Args:
        store: of the feature repository, over any offline store that keeps rows.
        database: the system of record where the offline store is PostgreSQL: rows get there by COPY. None elsewhere.
        user_ids: [R].
        ad_ids: [R].
        requested_at_us: [R] Unix microseconds.

    Raises:
        FeatureRowMismatch: the join returned other rows than it was given.
    """
    user_rows, user_of_row = different(user_ids, requested_at_us)
    ad_rows, ad_of_row = different(ad_ids, requested_at_us)
    asked = {"user_id": user_ids[user_rows], "event_timestamp": requested_at_us[user_rows]}
    records = _joined(store, database, asked, LIST)["retrieved_list"].combine_chunks().dictionary_encode()
    asked = {"ad_id": ad_ids[ad_rows], "event_timestamp": requested_at_us[ad_rows]}
    ads = _joined(store, database, asked, AD)
    place = records.indices.fill_null(len(records.dictionary)).to_numpy().astype(np.int64)
    return Stored(
        lists=unpack([*records.dictionary.to_pylist(), None]),
        list_of_row=place[user_of_row],
        ad_ids=ad_ids,
        requested_at_s=requested_at_us / 1e6,  # whole microseconds divided once: the float of datetime.timestamp()
        ads=ads.take(pa.array(ad_of_row)),
    )


def different(keys: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each different pair stands first, and for every row its place among the pairs."""
    order = np.lexsort((keys, times))
    new = np.ones(len(keys), np.bool_)
    new[1:] = (np.diff(times[order]) != 0) | (np.diff(keys[order]) != 0)
    place = np.empty(len(keys), np.int64)
    place[order] = np.cumsum(new) - 1
    return order[new], place


def _joined(
    store: FeatureStore, database: Engine | None, asked: dict[str, NDArray[np.int64]], features: Sequence[str]
) -> pa.Table:
    """Return Feast's join of stored features to (key, time) pairs, one row a pair, in their order."""
    count = len(asked["event_timestamp"])
    table = pa.table({**asked, _ROW: np.arange(count)})
    table = table.set_column(1, "event_timestamp", table["event_timestamp"].cast(pa.timestamp("us")).cast(_TIME))
    with _handed_over(database, table) as entities, warnings.catch_warnings():
        # Feast asks through pandas, which knows psycopg 2 alone; ibis 12 calls what DuckDB 2 deprecates.
        warnings.filterwarnings("ignore", "pandas only supports SQLAlchemy", UserWarning)
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        found = store.get_historical_features(entity_df=entities, features=list(features)).to_arrow()
    rows = found[_ROW].to_numpy()
    order = np.argsort(rows, kind="stable")
    if len(rows) != count or not np.array_equal(rows[order], np.arange(count)):
        raise FeatureRowMismatch(
            f"the point-in-time join returned {len(rows)} rows for {count}: a source holds two rows of one entity with "
            "equal event_at and created_at, or the offline store drops rows"
        )
    return found.select([name.partition(":")[2] for name in features]).take(pa.array(order))


@contextmanager
def _handed_over(database: Engine | None, table: pa.Table) -> Iterator[Any]:
    """Give what Feast takes for the rows: a frame, or a query of a table in PostgreSQL (Feast fills one row by row)."""
    if database is None:
        yield table.to_pandas()
        return
    name = f"{SCHEMA}.feast_entity_df_{uuid4().hex}"
    written = BytesIO()
    csv.write_csv(table, written, csv.WriteOptions(include_header=False))
    written.seek(0)
    columns = ", ".join(f"{it} {'timestamptz' if it == 'event_timestamp' else 'bigint'}" for it in table.column_names)
    with transaction(database) as connection:
        connection.execute(text(f"CREATE UNLOGGED TABLE {name} ({columns})"))
        connection.connection.cursor().copy_expert(f"COPY {name} FROM STDIN (FORMAT csv)", written)
    try:
        yield f"SELECT * FROM {name}"  # noqa: S608 - a name of ours
    finally:
        with transaction(database) as connection:
            connection.execute(text(f"DROP TABLE {name}"))
