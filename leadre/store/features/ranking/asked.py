"""What a ranker asks for, in Feast's ids. LEADRE §5.3, docs/adr/0001."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from leadre.domain.identity import ids_of
from leadre.errors import InvalidInput

Ids = Sequence[int | str] | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """U users with R target ads, each user's beside each other.

    Args:
        user_ids: int64[U].
        user_of_row: int64[R], 0 to U - 1.
        ad_ids: int64[R].
        request_time_s: Unix seconds.
    """

    user_ids: NDArray[np.int64]
    user_of_row: NDArray[np.int64]
    ad_ids: NDArray[np.int64]
    request_time_s: float

    @classmethod
    def of(cls, user_ids: Ids, ad_ids: Sequence[Ids] | NDArray[np.int64], *, now: datetime) -> Asked:
        """Read what `RankingFeatures.read` takes; raises as it does."""
        if now.tzinfo is None:
            raise InvalidInput(f"now={now.isoformat()} has no zone: pass an aware time")
        users = _ids(user_ids)
        if len(ad_ids) != len(users):
            raise InvalidInput(f"{len(users)} users with target ads for {len(ad_ids)}: pass a sequence of ads a user")
        if isinstance(ad_ids, np.ndarray) and ad_ids.ndim == 2:
            counts, ads = np.full(len(users), ad_ids.shape[1]), _ids(ad_ids.reshape(-1))
        else:
            parts = [_ids(of_user) for of_user in ad_ids]
            counts = np.array([len(part) for part in parts], dtype=np.int64)
            ads = parts[0] if len(parts) == 1 else np.concatenate((np.empty(0, np.int64), *parts))
        return cls(
            user_ids=users,
            user_of_row=np.repeat(np.arange(len(users)), counts),
            ad_ids=ads,
            request_time_s=now.timestamp(),
        )


def _ids(source_ids: Ids) -> NDArray[np.int64]:
    if isinstance(source_ids, np.ndarray) and source_ids.dtype == np.int64 and source_ids.min(initial=0) >= 0:
        return source_ids
    return np.array(ids_of(source_ids.tolist() if isinstance(source_ids, np.ndarray) else source_ids), dtype=np.int64)
