"""The lists' half of a match: what their ads are found by, made once for all their targets. LEADRE §5.3."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.key_places import KeyPlaces
from leadre.derivation.lists import SHARE, Lists
from leadre.derivation.targets import AD, KEYS, PACKED, PREFIX, Targets, ad_keys


class Listed(NamedTuple):
    """Some lists: [B] which, [B, n] where their ads are, and the probabilities of these."""

    lists: NDArray[np.int64]
    entries: NDArray[np.int64]
    p: NDArray[np.float64]


class ListSide:
    """U lists in the numbers of some targets.

    Methods look at blocks: B lists with T targets each, whose ids and whose places in the targets are [B, T]. Rows of a
    block are counted through, B * T. What the lists hold, `listed`, is what `ads_of` gives.

    Args:
        lists: U lists; those looked at have ads.
        targets: at least one.

    Attributes:
        deep: whether S-IDs have more codes than a key holds.
    """

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
        versions = np.array([it.index_version for it in targets.shapes], dtype=object)
        same_index = np.array([(versions == v) & bool(v) for v in lists.index_versions], dtype=np.bool_)
        shapes = np.array([shape[1:] for shape in targets.shapes])
        # [U, indexes]: whose S-IDs, and whose embeddings, may be compared
        self._same_levels = same_index & (lists.levels[:, None] == shapes[:, 0])
        self._same_width = same_index & (lists.widths[:, None] == shapes[:, 1]) & (shapes[:, 1] > 0)
        self._width = min(lists.directions.shape[1], targets.directions.shape[1])
        self._units, self._unit = _units(lists.directions[:, : self._width])
        if len(targets.shapes) == 1:  # with one index it can be said of a list alone
            self._keys[PREFIX : PREFIX + PACKED] *= self._same_levels[owner, 0]
            self._units *= self._same_width[owner]
        self.deep = min(lists.codes.shape[1], targets.codes.shape[1]) - 1 > PACKED

    def shared(
        self, listed: Listed, ads: NDArray[np.integer[Any]], places: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find what targets share with ads of their lists, by the keys of `ad_keys`.

        Returns:
            The first place in the list of an ad that has the row's key, from 1, or 0; and the probability of all that
            have it, at most 1: [8, B * T] both.
        """
        b, n = listed.entries.shape
        asked = np.ascontiguousarray(self._targets.keys.take(places, axis=0).transpose(2, 0, 1))
        asked[AD] = np.maximum(ads, -1) + 1
        if places.min() < 0:
            asked[AD + 1 :] *= places >= 0
        if self._targets.shape_of_ad is not None:
            index = self._targets.shape_of_ad[places]
            asked[PREFIX : PREFIX + PACKED] *= self._same_levels[listed.lists[:, None], index]
        tables = KeyPlaces(self._keys[:, listed.entries].reshape(-1, n))
        found = tables.find(asked.reshape(KEYS * b, -1))

        group = np.arange(0, KEYS * b * (n + 1), n + 1)[:, None]
        weights = np.broadcast_to(listed.p, (KEYS, b, n)).reshape(-1)
        masses = np.bincount((tables.own + group).reshape(-1), weights=weights, minlength=KEYS * b * (n + 1))
        masses[:: n + 1] = 0.0  # of what has no key
        mass = np.minimum(masses, 1.0).take(found + group)
        return found.reshape(KEYS, -1), mass.reshape(KEYS, -1)

    def shared_further(
        self, listed: Listed, places: NDArray[np.integer[Any]], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Count the codes that rows share beyond those of a key, which they share: [k] rows to [k]."""
        of_row = rows // places.shape[1]
        ours = self._lists.codes[listed.entries[of_row]]
        theirs = self._targets.codes[places.reshape(-1)[rows], : ours.shape[2]]
        counted = self._lists.levels[listed.lists[of_row], None, None] - 1 > np.arange(theirs.shape[1])
        same = (ours[..., : theirs.shape[1]] == theirs[:, None, :]) & counted
        shared: NDArray[np.int64] = np.logical_and.accumulate(same, axis=2).sum(axis=2).max(axis=1, initial=0)
        return shared - PACKED

    def cosines(self, listed: Listed, places: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return the greatest and the mean cosine of each row with its list, [2, B * T]."""
        units = self._units[listed.entries]
        pointing = self._targets.directions.take(places, axis=0)[..., : self._width].astype(np.float32)
        if places.min() < 0:
            pointing *= (places >= 0)[..., None]
        if self._targets.shape_of_ad is not None:
            pointing *= self._same_width[listed.lists[:, None], self._targets.shape_of_ad[places]][..., None]
        best = (units @ pointing.swapaxes(1, 2)).max(axis=1)
        mean = (listed.p[:, None, :] @ units @ pointing.swapaxes(1, 2).astype(np.float64))[:, 0]
        cosines = np.stack((best, mean))
        cosines /= np.sqrt(np.maximum(self._targets.squares.take(places), 1)) * self._unit
        np.clip(cosines, -1.0, 1.0, out=cosines)
        cosines += 0.0  # no -0.0
        return cosines.reshape(2, -1)

    def ads_of(self, chosen: NDArray[np.int64]) -> Listed:
        """Return what lists hold, [B] to [B, n].

        Beyond a shorter list stands its last ad again, without a share: it is found no sooner and adds nothing.
        """
        counts = self._lists.counts[chosen, None]
        position = np.arange(counts.max())
        entries = self._lists.offsets[chosen, None] + np.minimum(position, counts - 1)
        return Listed(chosen, entries, np.where(position < counts, self._lists.shares[entries] * SHARE, 0.0))


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
