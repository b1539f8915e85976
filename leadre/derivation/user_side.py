"""User-side ranking features: derived from ad facts when a list is written.

LEADRE §4.4.1, §5.3. What cannot be computed twice with the same bits (exp, log, means) is computed here, once, and kept
in the record; probabilities are rounded here to whole multiples of 2^-32, so that every sum of them is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.derivation.lists import SHARE, Lists
from leadre.errors import InvalidInput


def derive(
    *,
    counts: ArrayLike,
    ad_ids: ArrayLike,
    log_probabilities: ArrayLike,
    codes: ArrayLike,
    first_categories: ArrayLike,
    second_categories: ArrayLike,
    category_names: Sequence[str],
    advertiser_ids: ArrayLike,
    embeddings: ArrayLike,
    ecpms: ArrayLike,
    generated_at_s: ArrayLike,
    behavior_at_s: ArrayLike,
    release: str | Sequence[str],
    index_version: str | Sequence[str],
) -> Lists:
    """Derive U lists from E ads laid end to end, best ad of each list first.

    Args:
        counts: U list lengths, adding up to E.
        ad_ids: E.
        log_probabilities: E finite natural logarithms of the ads' probabilities.
        codes: [E, L] S-IDs, 0 to 65,535.
        first_categories: E positions in `category_names`.
        second_categories: E, likewise.
        category_names: names of both levels; "" is no category.
        advertiser_ids: E; 0 is unknown.
        embeddings: [E, width] quantised embeddings, z_a of Eq. 4.
        ecpms: E eCPM estimates in currency per 1,000 impressions.
        generated_at_s: U Unix times, or one for all.
        behavior_at_s: likewise, of the newest behavior; NaN without one.
        release: U names, or one for all.
        index_version: likewise.

    Raises:
        InvalidInput: arguments of different lengths, a log-probability or time that is not finite, a code out of range.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    ads = np.asarray(ad_ids, dtype=np.int64)
    lists, total = len(lengths), len(ads)
    scores = np.asarray(log_probabilities, dtype=np.float32)
    sids = np.asarray(codes)
    vectors = np.asarray(embeddings, dtype=np.float32)
    made, behaved = (np.asarray(times, dtype=np.float64) for times in (generated_at_s, behavior_at_s))
    releases, versions = ((it,) * lists if isinstance(it, str) else tuple(it) for it in (release, index_version))
    sides = (ads, scores, sids, np.asarray(first_categories), np.asarray(second_categories))
    sizes = {len(side) for side in (*sides, np.asarray(advertiser_ids), vectors, np.asarray(ecpms))}
    if sizes != {total} or lengths.sum() != total:
        raise InvalidInput(f"columns of {sorted(sizes)} ads for lists of {lengths.sum()}: each has one value an ad")
    if {made.size, behaved.size} - {1, lists} or {len(releases), len(versions)} != {lists}:
        raise InvalidInput(f"times, releases and index versions are one for all or one for each of {lists} lists")
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        problem = f"ad {ads[bad]} has log-probability {scores[bad]}; only finite ones have an order"
        raise InvalidInput(problem).about(ads=[int(ads[bad])])
    if not np.isfinite(made).all():
        raise InvalidInput("a list was generated at no time: generated_at_s is a finite Unix time")
    if sids.size and (sids.min() < 0 or sids.max() > 65_535):
        raise InvalidInput(f"codes from {sids.min()} to {sids.max()}: a list record holds 0 to 65,535")

    owner = np.repeat(np.arange(lists), lengths)
    shares = _shares(scores, owner, lists)
    p = shares * SHARE
    surprise = np.zeros(total)
    np.log(p, out=surprise, where=shares > 0)
    mean = np.empty((lists, vectors.shape[1]), dtype=np.float32)
    for axis in range(vectors.shape[1]):
        mean[:, axis] = _sums(p * vectors[:, axis], owner, lists)
    return Lists(
        offsets=np.concatenate(([0], np.cumsum(lengths))),
        present=np.ones(lists, dtype=np.bool_),
        ad_ids=ads,
        log_probabilities=scores,
        shares=shares,
        levels=np.full(lists, sids.shape[1], dtype=np.uint8),
        codes=sids.astype(np.uint16),
        widths=np.full(lists, vectors.shape[1], dtype=np.uint16),
        directions=directions(vectors),
        first_categories=sides[3].astype(np.int32),
        second_categories=sides[4].astype(np.int32),
        category_names=tuple(category_names),
        advertiser_ids=np.asarray(advertiser_ids, dtype=np.int64),
        generated_at_s=np.broadcast_to(made, lists),
        behavior_at_s=np.broadcast_to(behaved, lists),
        entropy=np.abs(_sums(-p * surprise, owner, lists)),  # abs turns -0.0 into 0.0
        expected_ecpm=_sums(p * np.asarray(ecpms, dtype=np.float64), owner, lists),
        mean_embedding=mean,
        releases=releases,
        index_versions=versions,
    )


def directions(embeddings: NDArray[Any]) -> NDArray[np.int8]:
    """Return what cosines compare, int8[N, width]: e / max |e| * 127, rounded; zero where e is zero or not finite."""
    vectors = np.asarray(embeddings, dtype=np.float32)
    peak = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    sound = (peak > 0) & np.isfinite(peak)
    scaled = np.where(sound, vectors, np.float32(0)) / np.where(sound, peak, np.float32(1))
    return np.rint(scaled * np.float32(127)).astype(np.int8)


def _shares(scores: NDArray[np.float32], owner: NDArray[np.int64], lists: int) -> NDArray[np.uint32]:
    """Return the softmax over each list in whole multiples of 2^-32; what is above the greatest one is that."""
    logits = scores.astype(np.float64)
    peak = np.full(lists, -np.inf)
    np.maximum.at(peak, owner, logits)
    weight = np.exp(logits - peak[owner])
    p = weight / _sums(weight, owner, lists)[owner]
    shares: NDArray[np.uint32] = np.minimum(np.rint(p / SHARE), 2.0**32 - 1).astype(np.uint32)
    return shares


def _sums(values: NDArray[np.floating[Any]], owner: NDArray[np.int64], lists: int) -> NDArray[np.float64]:
    """Add up the values of each list in its own order: the same bits whatever lists are beside it."""
    sums: NDArray[np.float64] = np.bincount(owner, weights=values, minlength=lists).astype(np.float64, copy=False)
    return sums
