"""Training rows as a frame, with their owner's ids, joined to the ranker's features of their own time. LEADRE §5.3."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from leadre.domain.identity import MAX_ID, ids_of
from leadre.errors import InvalidInput
from leadre.store.features.point_in_time.columns import RankerJoin

KEYS = ("user_id", "ad_id", "event_timestamp")


def joined_frame(
    join: RankerJoin, entity_frame: pd.DataFrame, *, features: Collection[str] | None = None
) -> pd.DataFrame:
    """Join the ranker's features to training rows, each as of its own time.

    Args:
        join: what joins.
        entity_frame: `user_id` and `ad_id`, as their owner names them (numbers or texts), `event_timestamp` (aware) and
            any further columns, e.g. labels. Several rows may share a user and an instant.
        features: those that are wanted; None: all of the service.

    Returns:
        The frame's columns and rows, in its order and as they came, and the features, in the service's order;
        `event_timestamp` in UTC.

    Raises:
        InvalidInput: a column is missing, times without a zone, a value that is no id, or an unknown feature.
        FeatureRowMismatch: the join returned other rows than it was given.
    """
    if missing := set(KEYS) - set(entity_frame.columns):
        raise InvalidInput(f"training rows need the columns {sorted(missing)}")
    if not isinstance(entity_frame["event_timestamp"].dtype, pd.DatetimeTZDtype):
        raise InvalidInput("times need a zone, e.g. pandas.to_datetime(..., utc=True)", column="event_timestamp")
    if entity_frame.empty:
        raise InvalidInput("there are no training rows")
    if unknown := set(features or ()) - set(join.names):
        raise InvalidInput(f"{sorted(unknown)[0]!r} is no feature of ranker_features_v1; docs/features.md lists them")
    frame = entity_frame.reset_index(drop=True)
    at = frame["event_timestamp"].dt.tz_convert("UTC").dt.as_unit("us")
    _, found = join.features(
        user_ids=_keys(frame["user_id"]),
        ad_ids=_keys(frame["ad_id"]),
        requested_at_us=at.astype("int64").to_numpy(),
        names=features,
    )
    return pd.concat([frame.assign(event_timestamp=at), pa.table(found).to_pandas()], axis=1)


def _keys(column: pd.Series) -> NDArray[np.int64]:
    """Return the entity keys of a column of ids, each different id looked at once."""
    if (
        pd.api.types.is_integer_dtype(column.dtype)
        and not column.hasnans
        and 0 <= column.min() <= column.max() <= MAX_ID
    ):
        return np.asarray(column, np.int64)
    different = column.unique()
    try:
        keys = dict(zip(different, ids_of(different), strict=True))
    except InvalidInput as error:
        raise InvalidInput(error.problem, column=str(column.name)) from None
    return np.asarray(column.map(keys), np.int64)
