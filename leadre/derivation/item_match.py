"""Item-side ranking features: how a target ad matches its user's retrieval list.

LEADRE §5.3. `match` is the one function behind the on-demand view, the point-in-time join, the backfill and the fast
reader; docs/features.md has its formulas. Probabilities are multiples of 2^-32 and directions whole numbers, so every
sum is exact: a row has the same bits in any batch, order and language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.derivation.list_side import ListSide
from leadre.derivation.lists import Lists, living
from leadre.derivation.neutral import LIST_TTL_S, NEUTRAL
from leadre.derivation.targets import AD, NOBODY, PACKED, PREFIX, Targets

_BLOCK = 2**18  # pairs of a target and a listed ad looked at together: what a core's cache holds; changes no value
_INTEGERS = ("hit", "rank", "longest_shared_prefix")
_MASSES = (
    "probability",
    *(f"prefix_mass_{depth}" for depth in range(1, PACKED + 1)),
    *("first_category_mass", "second_category_mass", "advertiser_mass"),
)  # in the order of keys
_FLOATS = (*_MASSES, "max_cosine", "mean_cosine", "list_age_s")


def match(
    lists: Lists,
    targets: Targets,
    *,
    list_of_row: NDArray[np.integer[Any]],
    ad_of_row: NDArray[np.integer[Any]],
    target_of_row: NDArray[np.integer[Any]],
    request_time_s: ArrayLike,
    ttl_s: float = LIST_TTL_S,
    over: Callable[..., Iterable[None]] = map,
) -> dict[str, NDArray[Any]]:
    """Derive the match scores of R rows, each a target ad and a list.

    Rows of one list are fastest beside each other.

    Args:
        lists: U lists.
        targets: T ads.
        list_of_row: [R], 0 to U - 1.
        ad_of_row: [R], ids of the target ads; a negative one is no ad.
        target_of_row: [R], where `targets` has each; -1 for an ad that no index knows.
        request_time_s: [R] Unix times, or one for all; NaN leaves the lists' age unknown and unchecked.
        ttl_s: a list older than this is absent, and so is one generated after the request.
        over: applies a function to blocks of rows; an executor's `map` does it in several threads.

    Returns:
        [R] values for every name in `NEUTRAL`, int64 or float64.
    """
    integers = np.zeros((len(_INTEGERS), len(list_of_row)), dtype=np.int64)
    floats = np.zeros((len(_FLOATS), len(list_of_row)), dtype=np.float64)
    alive, floats[-1] = living(lists, list_of_row, request_time_s=request_time_s, ttl_s=ttl_s)
    if alive.any():
        side = ListSide(lists, targets if len(targets.keys) else NOBODY)

        def match_block(block: _Block) -> None:
            _match_block(block, side, ad_of_row, target_of_row, integers, floats)

        for _ in over(match_block, _blocks(list_of_row, alive, lists.counts)):
            pass
    np.minimum(integers[1], 1, out=integers[0])
    columns = {**dict(zip(_INTEGERS, integers, strict=True)), **dict(zip(_FLOATS, floats, strict=True))}
    return {name: columns[name] for name in NEUTRAL}


class _Block(NamedTuple):
    """B lists, the rows of T targets each, and (B, T)."""

    lists: NDArray[np.int64]
    rows: NDArray[np.int64] | slice
    shape: tuple[int, int]


def _match_block(
    block: _Block,
    side: ListSide,
    ad_of_row: NDArray[np.integer[Any]],
    target_of_row: NDArray[np.integer[Any]],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
) -> None:
    """Write the features of a block, all but the first of `_INTEGERS` and the last of `_FLOATS`."""
    rows = block.rows
    ads, places = ad_of_row[rows].reshape(block.shape), target_of_row[rows].reshape(block.shape)
    listed = side.ads_of(block.lists)
    found, floats[: len(_MASSES), rows] = side.shared(listed, ads, places)
    longest = np.minimum(found[PREFIX : PREFIX + PACKED], 1).sum(axis=0)
    if side.deep:
        deep = np.flatnonzero(longest == PACKED)
        longest[deep] += side.shared_further(listed, places, deep)
    integers[1, rows], integers[2, rows] = found[AD], longest
    floats[len(_MASSES) : -1, rows] = side.cosines(listed, places)


def _blocks(
    list_of_row: NDArray[np.integer[Any]], alive: NDArray[np.bool_], counts: NDArray[np.int64]
) -> Iterator[_Block]:
    """Cut the living rows into blocks.

    Lists of about as many rows and ads go together; those with fewer rows repeat their last, which changes nothing.
    """
    rows = np.flatnonzero(alive)
    owners = list_of_row[rows]
    steps = owners[1:] - owners[:-1]
    changes = np.flatnonzero(steps)
    in_order = int(steps[changes].min(initial=0)) >= 0
    if not in_order:
        order = np.argsort(owners, kind="stable")
        rows, owners = rows[order], owners[order]
        changes = np.flatnonzero(owners[1:] != owners[:-1])
    begins = np.concatenate(([0], changes + 1))
    ends = [*begins[1:].tolist(), len(rows)]
    lists = owners[begins]
    groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for owner, n, begin, end in zip(lists.tolist(), counts[lists].tolist(), begins.tolist(), ends, strict=True):
        most = max(_BLOCK // n, 1)
        for start in range(begin, end, most):
            size = min(most, end - start)
            groups.setdefault((_rounded_up(size), _rounded_up(n)), []).append((owner, start, size))
    for (size, n), members in groups.items():
        together = max(_BLOCK // (size * n), 1)
        for at in range(0, len(members), together):
            part = members[at : at + together]
            chosen, starts, sizes = np.array(part).T
            total, last = sizes.sum(), starts[-1] + sizes[-1]
            shape = (len(part), int(sizes.max()))
            if in_order and last - starts[0] == total == shape[0] * shape[1] == rows[last - 1] - rows[starts[0]] + 1:
                yield _Block(chosen, slice(int(rows[starts[0]]), int(rows[last - 1]) + 1), shape)
            else:
                within = np.minimum(np.arange(shape[1]), sizes[:, None] - 1)
                yield _Block(chosen, rows[(starts[:, None] + within).reshape(-1)], shape)


def _rounded_up(size: int) -> int:
    """Return the next size with three leading bits, so that nearly equal sizes become one."""
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step
