"""Point in time: a ranker's features of training rows, each as of its own time. LEADRE §5.3.

Feast joins what is stored: list records to (user, time), an ad's facts to (ad, time), each pair asked for once. What is
derived is derived here, in arrays, by the functions that serve, so training and serving have the same bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import URL, text

from leadre.derivation import LIST_TTL_S, NEUTRAL, USER_NEUTRAL, Lists, unpack
from leadre.derivation.columns import targets_of
from leadre.derivation.item_match import match
from leadre.derivation.lists import living
from leadre.derivation.user_side import user_columns, user_numbers
from leadre.errors import FeatureRowMismatch
from leadre.store.records.database import connect, transaction

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig
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
_TYPES: dict[str, pa.DataType] = {
    **{name: pa.list_(pa.int64()) for name in ("retrieved_ad_ids", "retrieved_advertiser_ids")},
    **{name: pa.list_(pa.string()) for name in ("retrieved_sids", "categories")},
    **{f"retrieved_{level}_categories": pa.list_(pa.string()) for level in ("first", "second")},
    **{f"retrieved_{name}": pa.list_(pa.float64()) for name in ("log_probabilities", "probabilities", "embeddings")},
    **{name: pa.list_(pa.float64()) for name in ("mean_embedding", "category_probabilities")},
    "retrieved_count": pa.int64(),
    **{name: pa.float64() for name in ("top_probability", "entropy", "category_concentration", "expected_ecpm")},
    **{name: pa.float64() for name in ("generated_at_s", "behavior_at_s")},
    **{name: pa.string() for name in ("release", "index_version", "first_category", "second_category")},
    "advertiser_id": pa.int64(),
    "bid": pa.float64(),
    **{name: pa.int64() if isinstance(value, int) else pa.float64() for name, value in NEUTRAL.items()},
}


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankerJoin:
    """`ranker_features_v1` as of the past.

    Args:
        store: of the feature repository, over any offline store that keeps rows.
        database: the offline store where it is PostgreSQL, as Feast's own role: rows get there by COPY. None elsewhere.
        names: the service's features, in its order.
    """

    store: FeatureStore
    database: Engine | None
    names: tuple[str, ...]

    @classmethod
    def over(cls, store: FeatureStore) -> RankerJoin:
        """Return the join of the service as the store's registry has it."""
        views = store.get_feature_service("ranker_features_v1").feature_view_projections
        offline = store.config.offline_store
        return cls(
            store=store,
            database=_connected(offline) if offline.type == "postgres" else None,
            names=tuple(field.name for view in views for field in view.features),
        )

    def close(self) -> None:
        """Close the connections this join opened."""
        if self.database is not None:
            self.database.dispose()

    @property
    def schema(self) -> pa.Schema:
        """The features' types."""
        return pa.schema([(name, _TYPES[name]) for name in self.names])

    def features(
        self,
        *,
        user_ids: NDArray[np.int64],
        ad_ids: NDArray[np.int64],
        requested_at_us: NDArray[np.int64],
        names: Collection[str] | None = None,
    ) -> tuple[Stored, dict[str, pa.Array]]:
        """Return what was stored of rows, and their features by name, each as of its own time.

        Args:
            user_ids: [R].
            ad_ids: [R].
            requested_at_us: [R] Unix microseconds. Rows may share all three.
            names: features that are wanted; None: all.

        Raises:
            FeatureRowMismatch: the join returned other rows than it was given.
        """
        stored = stored_at(self.store, self.database, user_ids=user_ids, ad_ids=ad_ids, requested_at_us=requested_at_us)
        wanted = [name for name in self.names if names is None or name in names]
        found = {name: pa.array(values) for name, values in match_scores(stored).items()}
        found |= user_side(stored, wanted)
        found |= {name: stored.ads[name].combine_chunks().cast(_TYPES[name]) for name in CATALOG}
        return stored, {name: found[name] for name in wanted}


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
    user_rows, user_of_row = _different(user_ids, requested_at_us)
    ad_rows, ad_of_row = _different(ad_ids, requested_at_us)
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


def match_scores(stored: Stored) -> dict[str, NDArray[Any]]:
    """Return the item-side features of the rows, [R] by name."""
    version = stored.ads["ad_index_version"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    first, target_of_row = _different(stored.ad_ids, version.astype(np.int64))
    targets = stored.ads.select(INDEXED).take(pa.array(first)).to_pydict()
    return match(
        stored.lists,
        targets_of(targets, len(first)),
        list_of_row=stored.list_of_row,
        ad_of_row=stored.ad_ids,
        target_of_row=target_of_row,
        request_time_s=stored.requested_at_s,
    )


def user_side(stored: Stored, names: Collection[str]) -> dict[str, pa.Array]:
    """Return some of the user-side features of the rows, [R] by name. Each different list is looked at once."""
    lists, nothing = stored.lists, len(stored.lists) - 1  # the last one is absent
    row = pa.array(np.where(stored.alive, stored.list_of_row, nothing))
    numbers = user_numbers(lists, lists.present & (lists.counts > 0))
    del numbers["mean_embedding"]
    of_list: dict[str, Any] = {**numbers, "release": lists.releases, "index_version": lists.index_versions}
    if set(names) - set(of_list):
        of_list = user_columns(lists, list_of_row=np.arange(len(lists)), request_time_s=lists.generated_at_s)
    return {name: pa.array(of_list[name], _TYPES[name]).take(row) for name in USER_NEUTRAL if name in names}


def _connected(offline: PostgreSQLConfig) -> Engine:
    """Return connections as Feast's role, which may be another than ours (docs/operations.md)."""
    url = URL.create(
        "postgresql",
        username=offline.user,
        password=offline.password or None,
        host=offline.host,
        port=offline.port,
        database=offline.database,
        query={"sslmode": offline.sslmode or "prefer"},
    )
    return connect(url.render_as_string(hide_password=False), application_name="leadre point in time")


def _different(keys: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
