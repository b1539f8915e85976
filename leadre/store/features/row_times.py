"""From when a user's rows are, as they are online. LEADRE §4.4.1.

Straight from Feast's Redis layout, one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from leadre.store.features.layout import read_timestamp_value, timestamp_field, user_keys

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def row_times(online: Any, user_id: int, views: Sequence[str], *, project: str) -> dict[str, datetime | None]:
    """Return the event time of a user's row in each view; None where there is no row.

    Args:
        online: a client of the online store's Redis.
        user_id: whose.
        views: names of feature views of users.
        project: of feature_store.yaml.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    (key,) = user_keys(np.array([user_id], dtype=np.int64), project)
    values = [read_timestamp_value(value) for value in online.hmget(key, [timestamp_field(view) for view in views])]
    return {
        view: None if value is None else _EPOCH + timedelta(microseconds=value // 1000)
        for view, value in zip(views, values, strict=True)
    }
