"""The different targetings of an inventory: which of them accept a user, attribute by attribute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from leadre.domain.targeting import Targeting

Choice = tuple[str, ...] | int | None
"""What ads tell apart of a user's value: those of its texts that some ad names; of an age, the lowest one that no ad
tells apart from it, None for an unknown one. A choice keeps its meaning while targetings are added."""


class TargetingTable:
    """Numbers targetings, and answers per attribute with one truth value a targeting.

    `attributes` are those that some targeting restricts, age apart, which `restricts_age` tells.
    """

    def __init__(self) -> None:
        self.attributes: tuple[str, ...] = ()
        self.restricts_age = False
        self._codes: dict[Targeting, int] = {}
        self._restricting: dict[str, list[int]] = {}
        self._naming: dict[str, dict[str, list[int]]] = {}
        self._ages: list[tuple[int, int, int]] = []
        self._bounds: list[int] = []

    def __len__(self) -> int:
        """Return the number of targetings."""
        return len(self._codes)

    def add(self, targetings: Sequence[Targeting]) -> NDArray[np.int32]:
        """Return the targetings' numbers, int32[n]; those of old ones stay."""
        for targeting in targetings:
            if targeting in self._codes:
                continue
            code = self._codes[targeting] = len(self._codes)
            for attribute, values in targeting.accepted:
                self._restricting.setdefault(attribute, []).append(code)
                naming = self._naming.setdefault(attribute, {})
                for value in values:
                    naming.setdefault(value, []).append(code)
            if targeting.age is not None:
                self._ages.append((*targeting.age, code))
        self.attributes, self.restricts_age = tuple(self._restricting), bool(self._ages)
        self._bounds = sorted({-1, *(bound for low, high, _ in self._ages for bound in (low, high + 1))})
        return np.array([self._codes[targeting] for targeting in targetings], np.int32)

    def used(self, used: NDArray[np.bool_]) -> tuple[TargetingTable, NDArray[np.int32]]:
        """Return a table of the targetings in use alone, and what their numbers here became there, int32.

        Args:
            used: whether each is in use, bool[targetings].
        """
        table = TargetingTable()
        numbers: NDArray[np.int32] = np.zeros(len(used), np.int32)
        if self._codes:
            numbers[used] = table.add(list(compress(self._codes, used.tolist())))
        return table, numbers

    def values(self, attribute: str, values: frozenset[str]) -> Choice:
        """Return what ads tell apart of a user's values of an attribute."""
        return tuple(sorted(values & self._naming[attribute].keys()))

    def age(self, age: int | None) -> Choice:
        """Return what ads tell apart of an age: where the interval begins, in which every ad accepts all or none."""
        return None if age is None else self._bounds[bisect_right(self._bounds, age) - 1]

    def accepting(self, attribute: str, choice: Choice) -> NDArray[np.bool_]:
        """Return which targetings accept a choice or do not restrict the attribute, bool[targetings]."""
        accepts = np.ones(len(self._codes), np.bool_)
        if choice is None or isinstance(choice, int):  # an age
            low, high, codes = np.array(self._ages, np.int64).reshape(-1, 3).T
            accepts[codes] = False if choice is None else (low <= choice) & (choice <= high)
            return accepts
        accepts[self._restricting[attribute]] = False
        for value in choice:
            accepts[self._naming[attribute][value]] = True
        return accepts
