"""New ads into an index: its next revision, in one pass over each column and without work for any single old ad.

LEADRE §3.3: the inventory changes while the system serves. The index it starts from is not touched, so whoever uses it
goes on until the new one takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.ad_index import AdIndex, check_columns, refuse_repeated
from leadre.indexing.trie import Trie
from leadre.indexing.trie.insertion import Insertion
from leadre.indexing.trie.keys import keys_of


def grow(
    index: AdIndex,
    *,
    ad_ids: NDArray[np.int64],
    codes: NDArray[np.int32],
    first_categories: Sequence[str],
    second_categories: Sequence[str],
    advertiser_ids: NDArray[np.int64],
    embeddings: NDArray[np.float32],
) -> AdIndex:
    """Return the index's next revision, with new ads in it. No S-ID of the ads it holds changes.

    Its quality says anew what the sorted codes say at once: `ads`, `collision_rate`, `duplicate_rate`,
    `max_collision`, `usage` and `average_usage`. All other figures stay those of the ads that the index was
    built with, `built_ads` in number.

    Args:
        index: the newest revision.
        ad_ids: of the new ads, in any order, int64[n]; the other columns are as `AdIndex.assemble` takes them.
        codes: whole S-IDs.
        first_categories: names.
        second_categories: names.
        advertiser_ids: int64[n].
        embeddings: z_a.

    Raises:
        InvalidInput: an ad or an S-ID is there already or twice, a code exceeds its level, or the columns differ in
            length.
    """
    check_columns(codes, index.code_counts, ad_ids, first_categories, second_categories, advertiser_ids, embeddings)
    by_sid = np.argsort(keys_of(codes, max(index.code_counts)))
    ad_ids, codes = ad_ids[by_sid].astype(np.int64), codes[by_sid]
    by_id = np.argsort(ad_ids)
    refuse_repeated(ad_ids[by_id])
    place_by_id = np.searchsorted(index.ad_ids, ad_ids[by_id], sorter=index.by_id)
    inside = np.flatnonzero(place_by_id < len(index))
    known = inside[index.ad_ids[index.by_id[place_by_id[inside]]] == ad_ids[by_id[inside]]]
    if known.size:
        ad_id = int(ad_ids[by_id[known[0]]])
        problem = f"ad {ad_id} is in index {index.version} already; add only new ads"
        raise InvalidInput(problem, column="ad_id").about(ads=[ad_id])
    at = index.trie.insertion(codes)
    trie = index.trie.with_added(codes, at=at)
    names = tuple(sorted({*index.category_names, *first_categories, *second_categories}))
    number = {name: position for position, name in enumerate(names)}
    renumbered = np.array([number[name] for name in index.category_names], np.int32)

    def categories(old: NDArray[np.int32], new: Sequence[str]) -> NDArray[np.int32]:
        if names != index.category_names:
            old = renumbered[old]
        return at.merge(old, np.array([number[name] for name in new], np.int32)[by_sid])

    merged_codes = at.merge(index.codes, codes)
    return AdIndex(
        version=index.version,
        revision=index.revision + 1,
        ad_ids=at.merge(index.ad_ids, ad_ids),
        codes=merged_codes,
        first_categories=categories(index.first_categories, first_categories),
        second_categories=categories(index.second_categories, second_categories),
        category_names=names,
        advertiser_ids=at.merge(index.advertiser_ids, advertiser_ids[by_sid]),
        embeddings=at.merge(index.embeddings, embeddings[by_sid]),
        trie=trie,
        code_counts=index.code_counts,
        quality=_quality(index, codes, trie, merged_codes),
        by_id=Insertion(place_by_id, rows=len(index)).merge(at.moved(index.by_id), at.added[by_id]),
    )


def _quality(index: AdIndex, codes: NDArray[np.int32], trie: Trie, merged: NDArray[np.int32]) -> dict[str, Any]:
    """Bring the figures up to date by what the new ads (codes ascending) changed."""
    old = index.quality
    if not len(codes) or "collision_rate" not in old:
        return old
    levels = trie.levels - 1
    prefixes = codes[:, :levels]
    prefixes = prefixes[np.append(True, (prefixes[1:] != prefixes[:-1]).any(axis=1))]
    before, after = _ads_below(index.trie, prefixes), _ads_below(trie, prefixes)
    colliding = round(old["collision_rate"] * len(index)) + int(after[after > 1].sum() - before[before > 1].sum())
    usage = [
        # a code that some ad has, some ad always has: nothing to count where all are used
        share if share == 1 else float(np.bincount(merged[:, level], minlength=size).astype(np.bool_).mean())
        for level, (share, size) in enumerate(zip(old["usage"], index.code_counts[:levels], strict=True))
    ]
    return {
        **old,
        "ads": len(merged),
        "built_ads": old.get("built_ads", old["ads"]),
        "collision_rate": colliding / len(merged),
        "duplicate_rate": 1 - trie.nodes[levels - 1] / len(merged),
        "max_collision": max(old["max_collision"], int(after.max())),
        "usage": usage,
        "average_usage": float(np.mean(usage)),
    }


def _ads_below(trie: Trie, prefixes: NDArray[np.int32]) -> NDArray[np.int64]:
    nodes = trie.find(prefixes)
    low, high = trie.leaf_range(prefixes.shape[1], np.maximum(nodes, 0))
    return np.where(nodes < 0, 0, high - low)
