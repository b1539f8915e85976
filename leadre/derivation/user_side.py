"""User-side ranking features: derived from ad facts when a list is written, and given by name when it is read.

LEADRE §4.4.1, §5.3. What cannot be computed twice with the same bits (exp, log, means) is computed here, once, and kept
in the record; probabilities are rounded here to whole multiples of 2^-32, so that every sum of them is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadre.derivation.lists import SHARE, Lists, living
from leadre.derivation.neutral import LIST_TTL_S, USER_NEUTRAL
from leadre.derivation.targets import MOST_CODE
from leadre.domain.retrieval import Source
from leadre.domain.semantic_id import sid_texts
from leadre.errors import InvalidInput

_CELLS = 2**20  # lists times category names that are added up at once: bounds memory, changes no value


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
    release_epochs: ArrayLike = 0,
    behavior_sequences: ArrayLike = 0,
    source: Source | Sequence[Source] = "llm",
) -> Lists:
    """Derive U lists from E ads laid end to end, best ad of each list first.

    Args:
        counts: U list lengths, adding up to E.
        ad_ids: E.
        log_probabilities: E finite natural logarithms of the ads' probabilities.
        codes: [E, L] S-IDs, 0 to 65,534.
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
        release_epochs: U whole numbers, or one for all: which promotion was live; 0, the default (ours), for none.
        behavior_sequences: likewise, how many positive behaviors of each user were known.
        source: U names, or one for all: what retrieved the lists, "llm" unless said.

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
    sources: tuple[Source, ...] = (source,) * lists if isinstance(source, str) else tuple(source)
    epochs, sequences = (np.asarray(it, dtype=np.int64) for it in (release_epochs, behavior_sequences))
    sides = (ads, scores, sids, np.asarray(first_categories), np.asarray(second_categories))
    sizes = {len(side) for side in (*sides, np.asarray(advertiser_ids), vectors, np.asarray(ecpms))}
    if sizes != {total} or lengths.sum() != total:
        raise InvalidInput(f"columns of {sorted(sizes)} ads for lists of {lengths.sum()}: each has one value an ad")
    per_list = {len(releases), len(versions), len(sources)}
    if {made.size, behaved.size, epochs.size, sequences.size} - {1, lists} or per_list != {lists}:
        raise InvalidInput(f"times, releases and index versions are one for all or one for each of {lists} lists")
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        problem = f"ad {ads[bad]} has log-probability {scores[bad]}; only finite ones have an order"
        raise InvalidInput(problem).about(ads=[int(ads[bad])])
    if not np.isfinite(made).all():
        raise InvalidInput("a list was generated at no time: generated_at_s is a finite Unix time")
    if sids.size and (sids.min() < 0 or sids.max() > MOST_CODE):
        raise InvalidInput(f"codes from {sids.min()} to {sids.max()}: a list record holds 0 to {MOST_CODE}")

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
        release_epochs=np.broadcast_to(epochs, lists),
        behavior_sequences=np.broadcast_to(sequences, lists),
        sources=sources,
    )


def directions(embeddings: NDArray[Any]) -> NDArray[np.int8]:
    """Return what cosines compare, int8[N, width]: e / max |e| * 127, rounded; zero where e is zero or not finite."""
    axes = np.ascontiguousarray(np.asarray(embeddings, dtype=np.float32).T)  # few and long: what NumPy is fast at
    peak = np.abs(axes).max(axis=0, initial=0.0)
    sound = (peak > 0) & np.isfinite(peak)
    if not sound.all():
        axes, peak = np.where(sound, axes, np.float32(0)), np.where(sound, peak, np.float32(1))
    scaled = np.rint(axes / peak * np.float32(127)).astype(np.int8)
    return np.ascontiguousarray(scaled.T)


def user_numbers(lists: Lists, alive: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the user-side features that are numbers, by name: U values each, `mean_embedding` [U, width].

    Args:
        lists: U lists.
        alive: bool[U], whose lists count; the others are neutral.
    """
    counts, p, full = lists.counts, lists.shares * SHARE, np.flatnonzero(lists.counts)
    top, concentration = np.zeros(len(lists)), np.zeros(len(lists))
    if len(full):
        top[full] = np.maximum.reduceat(p, lists.offsets[full])
    names = len(lists.category_names)
    together = max(_CELLS // max(names, 1), 1)
    for start in range(0, len(lists), together):
        part = slice(lists.offsets[start], lists.offsets[min(start + together, len(lists))])
        size = len(counts[start : start + together])
        cell = np.repeat(np.arange(size) * names, counts[start : start + together])
        masses = np.bincount(cell + lists.first_categories[part], weights=p[part], minlength=size * names)
        concentration[start : start + size] = masses.reshape(size, names).max(axis=1, initial=0.0)
    np.minimum(concentration, 1.0, out=concentration)
    return {
        "retrieved_count": counts * alive,
        "top_probability": top * alive,
        "entropy": np.where(alive, lists.entropy, 0.0),
        "category_concentration": concentration * alive,
        "mean_embedding": np.where(alive[:, None], lists.mean_embedding, np.float32(0)),
        "expected_ecpm": np.where(alive, lists.expected_ecpm, 0.0),
        "generated_at_s": np.where(alive, lists.generated_at_s, 0.0),
        "behavior_at_s": np.where(alive & ~np.isnan(lists.behavior_at_s), lists.behavior_at_s, 0.0),
    }


def user_columns(
    lists: Lists, *, list_of_row: NDArray[np.integer[Any]], request_time_s: ArrayLike, ttl_s: float = LIST_TTL_S
) -> dict[str, list[Any]]:
    """Return the user-side features of R rows by name, as plain Python values.

    Args:
        lists: U lists.
        list_of_row: [R], 0 to U - 1.
        request_time_s: [R] Unix times, or one for all; NaN leaves the lists' age unchecked.
        ttl_s: a list older than this is absent, and so is one generated after the request.
    """
    values = _plain_columns(lists)
    alive, _ = living(lists, list_of_row, request_time_s=request_time_s, ttl_s=ttl_s)
    rows = np.where(alive, list_of_row, len(lists)).tolist()  # beyond the lists: what is neutral
    columns = {}
    for name, neutral in USER_NEUTRAL.items():
        of_list = [*values[name], [] if neutral == () else neutral]
        columns[name] = [of_list[row] for row in rows]
    return columns


def _plain_columns(lists: Lists) -> dict[str, list[Any]]:
    """Return the user-side features of every list, as plain Python values."""
    bounds, names = lists.offsets.tolist(), lists.category_names
    spans = [slice(begin, end) for begin, end in pairwise(bounds)]
    firsts = [names[number] for number in lists.first_categories.tolist()]
    shares = lists.shares.tolist()
    flat = {
        "retrieved_ad_ids": lists.ad_ids.tolist(),
        "retrieved_log_probabilities": lists.log_probabilities.tolist(),
        "retrieved_probabilities": (lists.shares * SHARE).tolist(),
        "retrieved_first_categories": firsts,
        "retrieved_second_categories": [names[number] for number in lists.second_categories.tolist()],
        "retrieved_advertiser_ids": lists.advertiser_ids.tolist(),
    }
    categories = [_categories(firsts[span], shares[span]) for span in spans]
    numbers = user_numbers(lists, np.ones(len(lists), dtype=np.bool_))
    widths = lists.widths.tolist()
    return {
        **{name: [values[span] for span in spans] for name, values in flat.items()},
        "retrieved_sids": [
            sid_texts(lists.codes[span, :levels].tolist())
            for span, levels in zip(spans, lists.levels.tolist(), strict=True)
        ],
        "retrieved_embeddings": [
            (lists.directions[span, :width] / 127.0).ravel().tolist() for span, width in zip(spans, widths, strict=True)
        ],
        "categories": [[name for name, _ in of_list] for of_list in categories],
        "category_probabilities": [[mass for _, mass in of_list] for of_list in categories],
        **{name: values.tolist() for name, values in numbers.items()},
        "mean_embedding": [
            mean[:width] for mean, width in zip(numbers["mean_embedding"].tolist(), widths, strict=True)
        ],
        "release": list(lists.releases),
        "index_version": list(lists.index_versions),
    }


def _categories(names: Sequence[str], shares: Sequence[int]) -> list[tuple[str, float]]:
    """Return the categories of a list and their probabilities: the most probable first, then by name."""
    totals: dict[str, int] = {}
    for name, share in zip(names, shares, strict=True):
        totals[name] = totals.get(name, 0) + share
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(name, min(total * SHARE, 1.0)) for name, total in ordered]


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
