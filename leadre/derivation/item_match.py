"""Item-side ranking features: how a target ad matches its user's retrieval list.

LEADRE §5.3. `match` is the one function behind the on-demand view, the point-in-time join, the backfill and the fast
reader; docs/features.md has its formulas. Probabilities are multiples of 2^-32 and cosines of 2^-20, so every sum and
product here is exact: a row has the same bits in any batch, order and language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.derivation.key_places import KeyPlaces
from leadre.derivation.lists import SHARE, Lists
from leadre.derivation.neutral import LIST_TTL_S, NEUTRAL, PREFIX_LEVELS

COSINE_STEP = 2.0**-20
"""Cosines are whole multiples of it."""

_BLOCK = 2**18  # pairs of a target and a listed ad looked at together: what a core's cache holds; changes no value
_EXACT_WIDTH = 2**24 // 127**2  # up to here float32 adds products of directions exactly, float64 beyond
_PACKED = 4  # leading codes that one key holds, 16 bits each
_KEYS = ("ad", "prefix 1", "prefix 2", "prefix 3", "prefix 4", "first category", "both categories", "advertiser")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """T ads that rows may have for their target, as an index has them.

    Args:
        keys: uint64[T, 7], `ad_keys` of each with the numbers of `category_numbers`.
        category_numbers: the number of each category name.
        versions: int32[T], the index of each ad, a position in `version_names`.
        version_names: index versions.
        levels: uint8[T], codes of an S-ID, the disambiguation code included.
        codes: integers[T, L], S-IDs; any value beyond an ad's levels.
        widths: uint16[T], numbers of an embedding.
        directions: int8[T, width] (`user_side.directions`); zero beyond an ad's width.
    """

    keys: NDArray[np.uint64]
    category_numbers: Mapping[str, int]
    versions: NDArray[np.int32]
    version_names: tuple[str, ...]
    levels: NDArray[np.uint8]
    codes: NDArray[np.integer[Any]]
    widths: NDArray[np.uint16]
    directions: NDArray[np.int8]


def ad_keys(
    codes: NDArray[np.integer[Any]],
    levels: NDArray[np.integer[Any]],
    *,
    first_categories: NDArray[np.integer[Any]],
    second_categories: NDArray[np.integer[Any]],
    advertiser_ids: NDArray[np.integer[Any]],
) -> NDArray[np.uint64]:
    """Return what N ads may share with others, as keys that are equal where they share it: uint64[N, 7].

    The leading 1, 2, 3 and 4 codes of the S-ID, the first category, both categories, the advertiser; 0 is none.

    Args:
        codes: [N, L], 0 to 65,534.
        levels: [N], codes of each S-ID; the last is the disambiguation code, which counts for nothing.
        first_categories: [N] numbers of names; -1 is no category.
        second_categories: [N], likewise.
        advertiser_ids: [N]; 0 is unknown.
    """
    keys = np.zeros((len(codes), len(_KEYS) - 1), dtype=np.uint64)
    prefix = np.zeros(len(codes), dtype=np.uint64)
    for depth in range(min(_PACKED, codes.shape[1] - 1)):
        prefix |= (codes[:, depth].astype(np.uint64) + np.uint64(1)) << np.uint64(48 - 16 * depth)
        keys[:, depth] = np.where(levels - 1 > depth, prefix, 0)
    first, second = ((side.astype(np.int64) + 1).astype(np.uint64) for side in (first_categories, second_categories))
    keys[:, 4] = first
    keys[:, 5] = np.where((first > 0) & (second > 0), first << np.uint64(32) | second, 0)
    keys[:, 6] = advertiser_ids
    return keys


_NOBODY = Targets(
    keys=np.zeros((1, len(_KEYS) - 1), np.uint64),
    category_numbers={},
    versions=np.full(1, -1, np.int32),
    version_names=(),
    levels=np.zeros(1, np.uint8),
    codes=np.zeros((1, 0), np.int32),
    widths=np.zeros(1, np.uint16),
    directions=np.zeros((1, 0), np.int8),
)


def match(
    lists: Lists,
    targets: Targets,
    *,
    list_of_row: NDArray[np.integer[Any]],
    ad_of_row: NDArray[np.integer[Any]],
    target_of_row: NDArray[np.integer[Any]],
    request_time_s: ArrayLike,
    ttl_s: float = LIST_TTL_S,
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

    Returns:
        [R] values for every name in `NEUTRAL`, int64 or float64.
    """
    rows = len(list_of_row)
    matched: dict[str, NDArray[Any]] = {
        name: np.zeros(rows, np.int64 if isinstance(value, int) else np.float64) for name, value in NEUTRAL.items()
    }
    age = list_ages(lists, request_time_s, list_of_row)
    alive = (lists.present & (lists.counts > 0))[list_of_row] & ~(age > ttl_s) & ~(age < 0)
    matched["list_age_s"][:] = np.where(alive & np.isfinite(age), age, NEUTRAL["list_age_s"])
    targets = targets if len(targets.versions) else _NOBODY
    numbers = np.array([*(targets.category_numbers.get(name, -1) if name else -1 for name in lists.category_names), -1])
    versions = {name: number for number, name in enumerate(targets.version_names) if name}
    side = _ListSide(
        lists=lists,
        versions=np.array([versions.get(name, -1) for name in lists.index_versions]),
        keys=ad_keys(
            lists.codes,
            np.repeat(lists.levels, lists.counts),
            first_categories=numbers[lists.first_categories],
            second_categories=numbers[lists.second_categories],
            advertiser_ids=lists.advertiser_ids,
        ),
    )
    for chosen, block in _blocks(np.asarray(list_of_row), alive, lists.counts):
        found = _match_block(side, targets, chosen, ad_of_row[block], target_of_row[block])
        for name, values in found.items():
            matched[name][block] = values
    return matched


def list_ages(lists: Lists, request_time_s: ArrayLike, list_of_row: NDArray[Any]) -> NDArray[np.float64]:
    """Return the seconds from each row's list to its request, [R]; NaN without a request time."""
    ages: NDArray[np.float64] = np.asarray(request_time_s, dtype=np.float64) - lists.generated_at_s[list_of_row]
    return ages


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ListSide:
    """The lists with their versions and the keys of their ads in the targets' numbers."""

    lists: Lists
    versions: NDArray[np.int64]
    keys: NDArray[np.uint64]


def _blocks(
    list_of_row: NDArray[np.integer[Any]], alive: NDArray[np.bool_], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Cut the living rows into blocks of B lists with T rows each: lists [B], rows [B, T].

    Lists of about as many rows and ads go together; those with fewer rows repeat their last, which changes nothing.
    """
    rows = np.flatnonzero(alive)
    owners = list_of_row[rows]
    if (owners[1:] < owners[:-1]).any():
        order = np.argsort(owners, kind="stable")
        rows, owners = rows[order], owners[order]
    begins = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1]))) if len(rows) else rows
    groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    ends = [*begins[1:].tolist(), len(rows)]
    for owner, n, begin, end in zip(
        owners[begins].tolist(), counts[owners[begins]].tolist(), begins.tolist(), ends, strict=False
    ):
        most = max(_BLOCK // n, 1)
        for start in range(begin, end, most):
            size = min(most, end - start)
            groups.setdefault((_rounded_up(size), _rounded_up(n)), []).append((owner, start, size))
    for (size, n), members in groups.items():
        together = max(_BLOCK // (size * n), 1)
        for at in range(0, len(members), together):
            lists, starts, sizes = np.array(members[at : at + together]).T[:, :, None]
            yield lists[:, 0], rows[starts + np.minimum(np.arange(size), sizes - 1)]


def _rounded_up(size: int) -> int:
    """Return the next size with three leading bits, so that nearly equal sizes become one."""
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step


def _match_block(
    side: _ListSide,
    targets: Targets,
    chosen: NDArray[np.int64],
    ads: NDArray[np.integer[Any]],
    places: NDArray[np.integer[Any]],
) -> dict[str, NDArray[Any]]:
    """Match B lists, n ads at most, with T targets each: [B, T] values by name."""
    lists = side.lists
    counts = lists.counts[chosen, None]
    position = np.arange(counts.max())
    entries = lists.offsets[chosen, None] + np.minimum(position, counts - 1)  # beyond a list: its last ad again,
    p = np.where(position < counts, lists.shares[entries] * SHARE, 0.0)  # without a share
    known = places >= 0
    version = targets.versions[places]
    same_index = known & (side.versions[chosen, None] == version) & (version >= 0)
    same_levels = same_index & (lists.levels[chosen, None] == targets.levels[places])

    b, n = entries.shape
    listed = _keys_first(lists.ad_ids[entries], side.keys[entries])
    asked = _keys_first(np.maximum(ads, -1), targets.keys.take(places, axis=0))
    if not known.all():
        asked[1:] *= known
    if not same_levels.all():
        asked[1 : 1 + _PACKED] *= same_levels
    tables = KeyPlaces(listed.reshape(-1, n))
    own, found = tables.own, tables.find(asked.reshape(len(_KEYS) * b, -1))
    group = np.arange(len(own))[:, None] * (n + 1)
    weights = np.broadcast_to(p, (len(_KEYS), b, n))
    masses = np.bincount((own + group).reshape(-1), weights=weights.reshape(-1), minlength=len(own) * (n + 1))
    masses.reshape(-1, n + 1)[:, 0] = 0.0
    mass = np.minimum(masses, 1.0).take(found + group).reshape(asked.shape)
    found = found.reshape(asked.shape)

    comparable = same_index & (lists.widths[chosen, None] == targets.widths[places]) & (lists.widths[chosen, None] > 0)
    width = min(lists.directions.shape[1], targets.directions.shape[1])
    best, mean = _cosines(lists.directions[entries, :width], targets.directions.take(places, axis=0)[..., :width], p)
    return {
        "hit": found[0] > 0,
        "rank": found[0],
        "probability": mass[0],
        **{f"prefix_mass_{depth}": mass[depth] for depth in range(1, PREFIX_LEVELS + 1)},
        "longest_shared_prefix": _longest(lists, targets, entries, places, found[1 : 1 + _PACKED], same_levels),
        "first_category_mass": mass[5],
        "second_category_mass": mass[6],
        "advertiser_mass": mass[7],
        "max_cosine": np.where(comparable, best, 0.0),
        "mean_cosine": np.where(comparable, mean, 0.0),
    }


def _keys_first(ads: NDArray[np.integer[Any]], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the keys of ads, the ad itself among them: [B, N] and [B, N, 7] to [8, B, N]."""
    stacked = np.empty((len(_KEYS), *ads.shape), dtype=np.uint64)
    stacked[0] = (ads + 1).astype(np.uint64)
    stacked[1:] = keys.transpose(2, 0, 1)
    return stacked


def _longest(
    lists: Lists,
    targets: Targets,
    entries: NDArray[np.int64],
    places: NDArray[np.integer[Any]],
    found: NDArray[np.int64],
    same_levels: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return the most leading codes that each target shares with an ad of its list, [B, T]."""
    longest: NDArray[np.int64] = (found > 0).sum(axis=0)
    deepest = int((targets.levels[places] * same_levels).max(initial=0)) - 1
    if deepest > _PACKED:
        same = found[-1][:, None, :] > 0
        for depth in range(deepest):
            ours, theirs = lists.codes[entries, depth], targets.codes[places, depth]
            same = same & (ours[:, :, None] == theirs[:, None, :]) & (targets.levels[places] > depth + 1)[:, None, :]
            if depth >= _PACKED:
                longest += same.any(axis=1)
    return longest


def _cosines(
    listed: NDArray[np.int8], directions: NDArray[np.int8], p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the greatest and the mean cosine of each target with its list: [B, n, width], [B, T, width] to [B, T]."""
    exact = np.float32 if listed.shape[2] <= _EXACT_WIDTH else np.float64
    ours, theirs = listed.astype(exact), directions.astype(exact)
    dots = (ours @ theirs.swapaxes(1, 2)).astype(np.float32, copy=False)
    norms = (_norms(ours) * np.float32(COSINE_STEP))[:, :, None] * _norms(theirs)[:, None, :]
    cosines = np.rint(np.divide(dots, norms, out=dots), out=dots)  # cannot exceed 1 / COSINE_STEP: it is rounded
    best = cosines.max(axis=1).astype(np.float64) * COSINE_STEP
    mean = (p[:, None, :] @ cosines.astype(np.float64))[:, 0] * COSINE_STEP
    return best + 0.0, mean + 0.0  # no -0.0


def _norms(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the lengths of directions, [B, N, width] to [B, N]; 1 for a zero one, whose products are all 0."""
    squares = np.einsum("bnw,bnw->bn", vectors, vectors).astype(np.float32, copy=False)
    norms: NDArray[np.float32] = np.sqrt(np.where(squares > 0, squares, np.float32(1)))
    return norms
