"""The ranker's features of training rows: stored ones joined, the others derived in arrays by the functions that serve.

LEADRE §5.3. So training and serving have the same bits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import URL

from leadre.derivation import NEUTRAL, USER_NEUTRAL
from leadre.derivation.columns import targets_of
from leadre.derivation.item_match import match
from leadre.derivation.user_side import user_columns, user_numbers
from leadre.store.features.point_in_time.join import CATALOG, INDEXED, Stored, different, stored_at
from leadre.store.records.database import connect

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig
    from sqlalchemy import Engine

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


def match_scores(stored: Stored) -> dict[str, NDArray[Any]]:
    """Return the item-side features of the rows, [R] by name."""
    version = stored.ads["ad_index_version"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    first, target_of_row = different(stored.ad_ids, version.astype(np.int64))
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
