"""What a ranker gets: columns by name, for rows of users and target ads. LEADRE §5.3.

User-side features are held once a user, and spread over its rows when a column is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leadre.derivation import NEUTRAL, USER_NEUTRAL, Lists
from leadre.derivation.lists import living
from leadre.derivation.user_side import user_columns, user_numbers
from leadre.errors import InvalidInput
from leadre.names import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

NAMES = (*USER_NEUTRAL, *NEUTRAL)
"""Every feature, in the order of the service `ranker_features_v1`."""
USER_NUMBERS = tuple(name for name, value in USER_NEUTRAL.items() if isinstance(value, (int, float)))
NUMBERS = (*USER_NUMBERS, *NEUTRAL)
"""The features that are one number a row."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingRows:
    """R rows of U users, each user's rows beside each other, in the order that was asked for.

    Args:
        user_of_row: int64[R], a position among the users.
        ad_ids: int64[R], Feast's ids of the target ads.
        lists: the users' lists.
        item_side: match scores by name, [R].
        request_time_s: Unix seconds.
        ttl_s: the age up to which lists count.
        answered: whether the online store answered within the deadline; if not, every feature is neutral.
        index_version: of the index that scores were made with; "" without one.
    """

    user_of_row: NDArray[np.int64]
    ad_ids: NDArray[np.int64]
    lists: Lists
    item_side: Mapping[str, NDArray[Any]]
    request_time_s: float
    ttl_s: float
    answered: bool
    index_version: str
    _made: dict[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.user_of_row)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a feature of every row, [R]: int64, float64, or Python objects (texts and lists).

        Raises:
            InvalidInput: there is no feature of this name.
        """
        return self.item_side[name] if name in NEUTRAL else self.of_users(name).take(self.user_of_row)

    def of_users(self, name: str) -> NDArray[Any]:
        """Return a user-side feature of every user, [U].

        Raises:
            InvalidInput: there is no user-side feature of this name.
        """
        if name in USER_NUMBERS:
            return self._user_numbers()[name]
        if name not in USER_NEUTRAL:
            hint = did_you_mean(name, USER_NEUTRAL)
            raise InvalidInput(f"there is no user-side feature {name!r}; {hint}there are {', '.join(USER_NEUTRAL)}")
        values = np.empty(len(self.lists), dtype=object)
        values[:] = self._user_columns()[name]
        return values

    def to_numpy(self, names: Sequence[str] = NAMES) -> dict[str, NDArray[Any]]:
        """Return features by name, in this order, as `[name]` gives them.

        Raises:
            InvalidInput: there is no feature of a name.
        """
        return {name: self[name] for name in names}

    def matrix(self, names: Sequence[str] = NUMBERS) -> NDArray[np.float32]:
        """Return features as columns of a matrix, float32[R, len(names)].

        Times in Unix seconds lose what is below two minutes in float32: `list_age_s` says what a ranker wants of them.

        Raises:
            InvalidInput: a feature is not one number a row.
        """
        table = np.empty((len(names), len(self)), dtype=np.float32)
        for column, name in zip(table, names, strict=True):
            if name not in NUMBERS:
                raise InvalidInput(f"{name!r} is no column of numbers; these are {', '.join(NUMBERS)}")
            column[:] = self[name]
        return np.ascontiguousarray(table.T)

    def to_arrow(self, names: Sequence[str] = NAMES) -> pa.Table:
        """Return features as a table, in this order, with the types of docs/features.md.

        Raises:
            InvalidInput: there is no feature of a name.
        """
        import pyarrow as pa

        types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        columns = {}
        for name in names:
            neutral = USER_NEUTRAL[name] if name in USER_NEUTRAL else NEUTRAL.get(name)
            kind = types.get(type(neutral)) or pa.list_(types[_ELEMENTS.get(name, float)])
            columns[name] = pa.array(self[name].tolist() if name not in NUMBERS else self[name], type=kind)
        return pa.table(columns)

    def to_torch(self, names: Sequence[str] = NUMBERS) -> dict[str, torch.Tensor]:
        """Return features as tensors by name, in this order: int64 or float64 [R].

        Raises:
            InvalidInput: a feature is not one number a row.
        """
        import torch

        if unfit := [name for name in names if name not in NUMBERS]:
            raise InvalidInput(f"{unfit[0]!r} is no column of numbers; these are {', '.join(NUMBERS)}")
        return {name: torch.from_numpy(np.ascontiguousarray(self[name])) for name in names}

    def _user_numbers(self) -> Mapping[str, NDArray[Any]]:
        if "numbers" not in self._made:
            everyone = np.arange(len(self.lists))
            alive, _ = living(self.lists, everyone, request_time_s=self.request_time_s, ttl_s=self.ttl_s)
            self._made["numbers"] = user_numbers(self.lists, alive)
        return self._made["numbers"]

    def _user_columns(self) -> Mapping[str, list[Any]]:
        if "columns" not in self._made:
            everyone = np.arange(len(self.lists))
            self._made["columns"] = user_columns(
                self.lists, list_of_row=everyone, request_time_s=self.request_time_s, ttl_s=self.ttl_s
            )
        return self._made["columns"]


_ELEMENTS: Mapping[str, type] = {
    "retrieved_ad_ids": int,
    "retrieved_advertiser_ids": int,
    "retrieved_sids": str,
    "retrieved_first_categories": str,
    "retrieved_second_categories": str,
    "categories": str,
}
"""What the arrays of a feature hold, where it is not floats."""
