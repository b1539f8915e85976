"""Item-side ranking features: how a target ad matches its user's retrieval list.

LEADRE §5.3. `match` is the one function behind the on-demand view, the point-in-time join, the backfill and the fast
reader; docs/features.md has its formulas. Probabilities are multiples of 2^-32 and directions whole numbers, so every
sum is exact: a row has the same bits in any batch, order and language.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.derivation.key_places import KeyPlaces
from leadre.derivation.lists import SHARE, Lists, living
from leadre.derivation.neutral import LIST_TTL_S, NEUTRAL
from leadre.derivation.targets import AD, KEYS, NOBODY, PACKED, PREFIX, Targets, ad_keys

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
    integers = np.zeros((len(_INTEGERS), len(list_of_row)), dtype=np.int64)
    floats = np.zeros((len(_FLOATS), len(list_of_row)), dtype=np.float64)
    alive, floats[-1] = living(lists, list_of_row, request_time_s=request_time_s, ttl_s=ttl_s)
    side = _ListSide(lists, targets if len(targets.keys) else NOBODY)
    for chosen, where, shape in _blocks(list_of_row, alive, lists.counts):
        ads, places = ad_of_row[where].reshape(shape), target_of_row[where].reshape(shape)
        found = side.match(chosen, ads, places)
        integers[1, where], integers[2, where], floats[: len(_MASSES), where], floats[len(_MASSES) : -1, where] = found
    np.minimum(integers[1], 1, out=integers[0])
    columns = {**dict(zip(_INTEGERS, integers, strict=True)), **dict(zip(_FLOATS, floats, strict=True))}
    return {name: columns[name] for name in NEUTRAL}


def _blocks(
    list_of_row: NDArray[np.integer[Any]], alive: NDArray[np.bool_], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64] | slice, tuple[int, int]]]:
    """Cut the living rows into blocks of B lists with T rows each: the lists, the rows [B * T], (B, T).

    Lists of about as many rows and ads go together; those with fewer rows repeat their last, which changes nothing.
    """
    rows = np.flatnonzero(alive)
    owners = list_of_row[rows]
    in_order = not (owners[1:] < owners[:-1]).any()
    if not in_order:
        order = np.argsort(owners, kind="stable")
        rows, owners = rows[order], owners[order]
    begins = np.flatnonzero(np.concatenate((owners[:1] >= 0, owners[1:] != owners[:-1])))
    ends = [*begins[1:].tolist(), len(rows)]
    lists = owners[begins]
    groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for owner, n, begin, end in zip(lists.tolist(), counts[lists].tolist(), begins.tolist(), ends, strict=False):
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
                yield chosen, slice(int(rows[starts[0]]), int(rows[last - 1]) + 1), shape
            else:
                within = np.minimum(np.arange(shape[1]), sizes[:, None] - 1)
                yield chosen, rows[(starts[:, None] + within).reshape(-1)], shape


def _rounded_up(size: int) -> int:
    """Return the next size with three leading bits, so that nearly equal sizes become one."""
    step = 1 << max(size.bit_length() - 3, 0)
    return -(-size // step) * step


class _ListSide:
    """The lists' half of a comparison, made once for all their targets."""

    def __init__(self, lists: Lists, targets: Targets) -> None:
        self._lists, self._targets = lists, targets
        owner = np.repeat(np.arange(len(lists)), lists.counts)
        numbers = [targets.category_numbers.get(name, -1) if name else -1 for name in lists.category_names]
        of_name = np.array([*numbers, -1])
        self._keys = ad_keys(
            lists.codes,
            levels=lists.levels[owner],
            first_categories=of_name[lists.first_categories],
            second_categories=of_name[lists.second_categories],
            advertiser_ids=lists.advertiser_ids,
        )
        self._keys[AD] = lists.ad_ids + 1
        same_index = np.array(
            [[bool(v) and v == it.index_version for it in targets.shapes] for v in lists.index_versions]
        )
        shapes = np.array([shape[1:] for shape in targets.shapes])
        # [U, indexes]: whose S-IDs, and whose embeddings, may be compared
        self._same_levels = same_index & (lists.levels[:, None] == shapes[:, 0])
        self._same_width = same_index & (lists.widths[:, None] == shapes[:, 1]) & (shapes[:, 1] > 0)
        self._width = min(lists.directions.shape[1], targets.directions.shape[1])
        self._units, self._unit = _units(lists.directions[:, : self._width])
        if len(targets.shapes) == 1:  # with one index it can be said of a list alone
            self._keys[PREFIX : PREFIX + PACKED] *= self._same_levels[owner, 0]
            self._units *= self._same_width[owner]

    def match(
        self, chosen: NDArray[np.int64], ads: NDArray[np.integer[Any]], places: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Match B lists, n ads at most, with T targets each.

        Args:
            chosen: [B], the lists.
            ads: [B, T] ids.
            places: [B, T] places in the targets.

        Returns:
            Rank and longest prefix, [B * T] both; `_MASSES`, [8, B * T]; greatest and mean cosine, [2, B * T].
        """
        counts = self._lists.counts[chosen, None]
        position = np.arange(counts.max())
        entries = self._lists.offsets[chosen, None] + np.minimum(position, counts - 1)  # beyond a list: its last ad
        p = np.where(position < counts, self._lists.shares[entries] * SHARE, 0.0)  # again, without a share

        b, n = entries.shape
        asked, pointing = self._asked(chosen, ads, places)
        tables = KeyPlaces(self._keys[:, entries].reshape(-1, n))
        found = tables.find(asked.reshape(KEYS * b, -1))
        group = np.arange(KEYS * b)[:, None] * (n + 1)
        weights = np.broadcast_to(p, (KEYS, b, n)).reshape(-1)
        masses = np.bincount((tables.own + group).reshape(-1), weights=weights, minlength=KEYS * b * (n + 1))
        masses[:: n + 1] = 0.0  # what has no key
        mass = np.minimum(masses, 1.0).take(np.add(found, group)).reshape(KEYS, -1)
        found = found.reshape(KEYS, -1)
        longest = np.minimum(found[PREFIX : PREFIX + PACKED], 1).sum(axis=0)
        if min(self._lists.codes.shape[1], self._targets.codes.shape[1]) - 1 > PACKED:
            longest += self._further(entries, chosen, places, found[PREFIX + PACKED - 1])
        return found[AD], longest, mass, self._cosines(entries, places, pointing, p)

    def _asked(
        self, chosen: NDArray[np.int64], ads: NDArray[np.integer[Any]], places: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return the targets' keys, [8, B, T], and directions, [B, T, width]; what must not be compared is zero."""
        asked = np.ascontiguousarray(self._targets.keys.take(places, axis=0).transpose(2, 0, 1))
        asked[AD] = np.maximum(ads, -1) + 1
        pointing = self._targets.directions.take(places, axis=0)[..., : self._width].astype(np.float32)
        if places.min(initial=0) < 0:
            asked[AD + 1 :] *= places >= 0
            pointing *= (places >= 0)[..., None]
        if self._targets.shape_of_ad is not None:
            index = self._targets.shape_of_ad[places]
            asked[PREFIX : PREFIX + PACKED] *= self._same_levels[chosen[:, None], index]
            pointing *= self._same_width[chosen[:, None], index][..., None]
        return asked, pointing

    def _cosines(
        self,
        entries: NDArray[np.int64],
        places: NDArray[np.integer[Any]],
        pointing: NDArray[np.float32],
        p: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Return the greatest and the mean cosine of each target with its list, [2, B * T]."""
        units = self._units[entries]
        best = (units @ pointing.swapaxes(1, 2)).max(axis=1)
        mean = (p[:, None, :] @ units @ pointing.swapaxes(1, 2).astype(np.float64))[:, 0]
        cosines = np.stack((best, mean))
        cosines /= np.sqrt(np.maximum(self._targets.squares[places], 1.0)) * self._unit
        np.clip(cosines, -1.0, 1.0, out=cosines)
        cosines += 0.0  # no -0.0
        return cosines.reshape(2, -1)

    def _further(
        self,
        entries: NDArray[np.int64],
        chosen: NDArray[np.int64],
        places: NDArray[np.integer[Any]],
        found: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Count the codes shared beyond those of a key, for the few rows that share these: [B * T]."""
        rows = np.flatnonzero(found)
        of_row = rows // places.shape[1]
        listed = self._lists.codes[entries[of_row]]
        asked = self._targets.codes[places.reshape(-1)[rows], : listed.shape[2]]
        deep = self._lists.levels[chosen[of_row], None, None] - 1 > np.arange(asked.shape[1])
        same = (listed[..., : asked.shape[1]] == asked[:, None, :]) & deep
        shared = np.logical_and.accumulate(same, axis=2).sum(axis=2).max(axis=1, initial=0)
        further = np.zeros(places.size, dtype=np.int64)
        further[rows] = shared - PACKED
        return further


def _units(directions: NDArray[np.int8]) -> tuple[NDArray[np.float32], float]:
    """Return directions as whole numbers of one length, and that length: 2^k, as long as mean cosines are exact.

    A mean cosine adds products of a share (32 bits), a unit (k bits) and a direction no longer than 127 sqrt(width):
    together at most the 53 bits of float64.
    """
    unit = 2.0 ** (21 - ((127**2 * directions.shape[1]).bit_length() + 1) // 2)
    vectors = directions.astype(np.float64)
    lengths = np.sqrt(np.einsum("ew,ew->e", vectors, vectors))
    lengths[lengths == 0] = 1.0
    return np.rint(vectors / lengths[:, None] * unit).astype(np.float32), unit
