"""Balanced assignment: ads that would share all M codes take free codes of the last level instead.

LEADRE §3.2, before the disambiguation code; ours. The first M - 1 codes of an ad never change, so its S-ID still says
what it said; only the last, finest code moves, to the nearest one that no other ad has under the same prefix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.indexing.quantisers.quantiser import Codes, Floats
from leadre.indexing.trie.keys import keys_of

_CELLS = 1 << 22  # distances held at a time
_HASH_BITS = 22

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def balance(codes: Codes, hidden: Floats, codebooks: Floats, *, taken: Codes | None = None) -> Codes:
    """Return codes, int32[N, M], with as few collisions as the last level has room for.

    Among ads with the same M codes the one nearest to its code keeps it. The others, nearest first, take the nearest
    code of the last level that no ad has under their first M - 1 codes; where none is left they keep sharing. Hence an
    ad that collides with none keeps its codes, and no ad gets a code that another one had or took. The order of the
    rows has no influence, except that ads with equal codes and equal hidden embeddings are told apart by it.

    Args:
        codes: int32[N, M], the nearest codes.
        hidden: z^_a, the encoder's outputs, float32[N, width].
        codebooks: float32[M, K, width].
        taken: int32[E, M], the codes of ads indexed before: they stay, and nobody moves there.
    """
    size, last = codebooks.shape[1], codes.shape[1] - 1
    everyone, prefixes, before = _with_neighbours(codes, taken, size)
    whole = keys_of(everyone, size)
    order = np.argsort(whole)
    ads, settled = _colliding(whole, order, before)
    if not len(ads):
        return codes.copy()

    # 1. Rank them by prefix, then nearest to their code first; equals by code and values
    residuals = hidden[ads] - sum(codebooks[level][codes[ads, level]] for level in range(last))
    distances = np.square(residuals - codebooks[last][codes[ads, last]]).sum(axis=1)
    rank = np.lexsort((*hidden[ads].T[::-1], codes[ads, last], distances, prefixes[before + ads]))

    # 2. The first with a code stays, unless an ad indexed before is there
    _, first = np.unique(whole[before + ads[rank]], return_index=True)
    moves = np.ones(len(ads), bool)
    moves[first] = settled[rank[first]]
    ads, residuals = ads[rank[moves]], residuals[rank[moves]]

    # 3. The others choose: those with one prefix after each other, the prefixes side by side
    result = codes.copy()
    groups, starts, counts = np.unique(prefixes[before + ads], return_index=True, return_counts=True)
    low = np.searchsorted(prefixes, groups, sorter=order)
    high = np.searchsorted(prefixes, groups, side="right", sorter=order)
    largest_first, norms = np.argsort(-counts, kind="stable"), np.square(codebooks[last]).sum(axis=1)
    block = max(1, _CELLS // size)
    for begin in range(0, len(groups), block):
        some = largest_first[begin : begin + block]
        occupied = _occupied(everyone[:, last], order, low[some], high[some], size=size)
        for turn in range(min(int(counts[some[0]]), size)):
            occupied = occupied[: int((counts[some] > turn).sum())]
            chooser = starts[some[: len(occupied)]] + turn
            distances = norms - 2 * residuals[chooser] @ codebooks[last].T
            distances[occupied] = np.inf
            choice = distances.argmin(axis=1)
            free = np.flatnonzero(~occupied[np.arange(len(occupied)), choice])
            occupied[free, choice[free]] = True
            result[ads[chooser[free]], last] = choice[free]
    return result


def _with_neighbours(codes: Codes, taken: Codes | None, size: int) -> tuple[Codes, Ints, int]:
    """Return `codes` below those rows of `taken` that matter to them, the keys of the prefixes, and how many precede.

    What matters has a prefix of `codes`. A table of hashes finds it without a sort of what may be the whole index; the
    few rows it lets through in error do no harm.
    """
    if taken is None:
        return codes, keys_of(codes[:, :-1], size), 0
    prefixes = keys_of(np.concatenate([taken[:, :-1], codes[:, :-1]]), size)
    hashes = (prefixes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _HASH_BITS)
    wanted = np.zeros(1 << _HASH_BITS, bool)
    wanted[hashes[len(taken) :]] = True
    near = np.flatnonzero(wanted[hashes[: len(taken)]])
    everyone = np.concatenate([taken[near], codes])
    return everyone, np.concatenate([prefixes[near], prefixes[len(taken) :]]), len(near)


def _colliding(whole: Ints, order: Ints, before: int) -> tuple[Ints, Mask]:
    """Return the new ads whose key occurs twice or more, and for each whether an ad indexed before has it."""
    keys = whole[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    sizes = np.diff(starts, append=len(keys))
    given = np.add.reduceat(order < before, starts, dtype=np.int64) if len(starts) else sizes
    shared = np.repeat(sizes > 1, sizes) & (order >= before)
    return order[shared] - before, np.repeat(given > 0, sizes)[shared]


def _occupied(last: NDArray[np.int32], order: Ints, low: Ints, high: Ints, *, size: int) -> Mask:
    """Return bool[groups, size]: the codes of the last level in use; group g has the sorted rows low[g]:high[g]."""
    sizes = high - low
    at = np.arange(sizes.sum()) + np.repeat(low - (np.cumsum(sizes) - sizes), sizes)
    occupied = np.zeros((len(low), size), bool)
    occupied[np.repeat(np.arange(len(low)), sizes), last[order[at]]] = True
    return occupied
