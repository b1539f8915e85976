"""What lists name again and again, numbered within each list: categories and advertisers. LEADRE §4.4.1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.lists import Lists


def names_of(lists: Lists) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint16]]:
    """Number the category names of each list from 0.

    Returns:
        The names that any list has; bounds of each list's names, [U + 1]; the names they are, as positions in the
        first; and every ad's first and second category as a number of its list, [2, E].
    """
    both = np.stack((lists.first_categories, lists.second_categories))
    known = np.zeros(len(lists.category_names), dtype=np.bool_)
    known[both] = True
    positions = np.flatnonzero(known)
    place = np.cumsum(known) - 1
    keys = np.repeat(np.arange(len(lists)) * len(positions), lists.counts) + place[both]
    there = np.zeros(len(lists) * len(positions), dtype=np.bool_)
    there[keys] = True
    used = np.flatnonzero(there)
    bounds = np.searchsorted(used, np.arange(len(lists) + 1) * len(positions))
    number = np.empty(len(there), dtype=np.uint16)  # as a record has them
    number[used] = np.arange(len(used)) - np.repeat(bounds[:-1], np.diff(bounds))
    names = [lists.category_names[position] for position in positions.tolist()]
    return names, bounds, used % max(len(positions), 1), number[keys]


def distinct_of(
    values: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Number the distinct values of each list from 0, the least first.

    Args:
        values: [E], of lists laid end to end.
        offsets: [U + 1], where lists begin.

    Returns:
        The distinct values of each list in turn; their bounds, [U + 1]; and every value as a number of its list, [E].
    """
    counts = offsets[1:] - offsets[:-1]
    lists, longest = len(counts), int(counts.max(initial=0))
    if lists * longest == len(values):  # lists of one length: rows
        order = (np.argsort(values.reshape(lists, longest), axis=1) + offsets[:-1, None]).reshape(-1)
    else:
        order = np.lexsort((values, np.repeat(np.arange(lists), counts)))
    ordered = values[order]
    new = np.ones(len(values), dtype=np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    new[offsets[:-1][counts > 0]] = True
    place = np.concatenate(([0], np.cumsum(new)))
    bounds = place[offsets]
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = place[1:] - 1 - np.repeat(bounds[:-1], counts)
    return ordered[new], bounds, numbers
