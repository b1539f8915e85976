"""An index as match scores need it: where each ad is, and what it may share with others. LEADRE §5.3.

Made once when an index is opened, and never changed: readers of many threads hold one, and a newer index is another.
About 120 bytes an ad in memory; the rest of the index stays on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadre.derivation.key_places import KeyPlaces
from leadre.derivation.targets import NOBODY, Shape, Targets, ad_keys
from leadre.derivation.user_side import directions
from leadre.indexing.ad_index import AdIndex

_SLOTS = 8  # to an ad: its id is nearly always found at once


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdTable:
    """N ads of one index.

    Args:
        version: the index version; "" without an index.
        revision: of the version.
        targets: what each ad may share, in the order of the index's rows.
        places: finds an ad by its id plus one.
    """

    version: str
    revision: int
    targets: Targets
    places: KeyPlaces

    @classmethod
    def of(cls, index: AdIndex) -> AdTable:
        """Make the table of an index; takes about a second for a million ads."""
        named = np.array([bool(name) for name in index.category_names], dtype=np.bool_)
        first, second = (
            np.where(named[side], side, -1) if len(named) else side
            for side in (index.first_categories, index.second_categories)
        )
        keys = ad_keys(
            index.codes,
            levels=index.codes.shape[1],
            first_categories=first,
            second_categories=second,
            advertiser_ids=index.advertiser_ids,
        )
        targets = Targets(
            shapes=(Shape(index.version, index.codes.shape[1], index.embeddings.shape[1]),),
            keys=np.ascontiguousarray(keys.T),
            category_numbers={name: number for number, name in enumerate(index.category_names)},
            codes=index.codes,
            directions=directions(index.embeddings),
        )
        return cls(
            version=index.version,
            revision=index.revision,
            targets=targets,
            places=KeyPlaces(_keys(index.ad_ids)[None], slots=_SLOTS),
        )

    @classmethod
    def empty(cls) -> AdTable:
        """Return the table of no index: it knows no ad."""
        places = KeyPlaces(np.zeros((1, 0), np.uint64), slots=_SLOTS)
        return cls(version="", revision=0, targets=NOBODY, places=places)

    def rows(self, ad_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where `targets` has each ad, [n]; -1 for an unknown one."""
        rows: NDArray[np.int64] = self.places.find(_keys(ad_ids)[None])[0] - 1
        return rows


def _keys(ad_ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (ad_ids + 1).astype(np.uint64)
