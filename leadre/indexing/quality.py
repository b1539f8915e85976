"""How good the S-IDs of an index are, before any model is trained on them.

LEADRE §5.2.5, Table 5, which names three figures without defining them. Here, over the M codes before disambiguation:

- collision rate: share of ads that share their codes with another ad. Beside it `duplicate_rate`, the other reading:
  1 - distinct code tuples / ads (it counts one ad of each group as free of collision, so it is the smaller one);
- max collision number: ads in the largest group that shares its codes;
- average usage rate: share of a codebook's codes that some ad has, averaged over the codebooks.

And what each level says: future work (2) of the paper is that the first codebook holds most of the information. And
whether the S-IDs say anything: equal texts get equal codes, and then only the last code tells ads apart (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.indexing.trie.keys import keys_of

Ints = NDArray[np.int64]

MOST_ALIKE = 0.2
"""Of a catalog whose texts differ, the share of ads that differ from each other in the last code only (ours; .02 on the
made-up world, 1 where all texts are equal)."""
MOST_COLLISIONS = 0.5
"""Likewise, the share of ads that share all their codes (ours)."""

_CELLS = 1 << 24  # counted by an array of all cells up to here, by sorting beyond
_CHUNK = 1 << 16


def index_quality(
    codes: NDArray[np.int32],
    *,
    size: int,
    categories: NDArray[np.int32],
    hidden: NDArray[np.float32] | None = None,
    codebooks: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Return Table 5's figures and per-level ones, as JSON values.

    Args:
        codes: int32[N, M], without the disambiguation code; N >= 1.
        size: K.
        categories: int32[N], the ads' categories, from 0.
        hidden: z^_a, the encoder's outputs, float32[N, width]; with `codebooks`, for `variance_explained`.
        codebooks: float32[M, K, width].

    Returns:
        `ads`, `collision_rate`, `duplicate_rate`, `max_collision`, `average_usage`; `last_code_only`, the share of ads
        in the largest group whose codes are the same but for the last codebook's; and lists of one number a level:
        `usage`, `entropy_bits` (of the level's codes; at most log2 K), `mutual_information_bits` (of the level's code
        alone with the category), `category_purity` (share of ads whose category is the commonest one among the ads with
        the same codes up to this level) and, where `hidden` and `codebooks` are given, `variance_explained` (by the
        codes up to this level).

    Raises:
        InvalidInput: no ads.
    """
    ads, levels = codes.shape
    if not ads:
        raise InvalidInput("an index without ads has no quality; index at least one ad")
    sizes = _runs(np.sort(keys_of(codes, size)))[1]
    quality: dict[str, Any] = {
        "ads": ads,
        "collision_rate": float(sizes[sizes > 1].sum() / ads),
        "duplicate_rate": float(1 - len(sizes) / ads),
        "max_collision": int(sizes.max()),
    }
    used = [len(counts_of(codes[:, level].astype(np.int64), size)) / size for level in range(levels)]
    quality |= {
        "average_usage": float(np.mean(used)),
        "last_code_only": int(_runs(np.sort(keys_of(codes[:, : max(1, levels - 1)], size)))[1].max()) / ads,
        "usage": used,
        "entropy_bits": [entropy_bits(counts_of(codes[:, level].astype(np.int64), size)) for level in range(levels)],
        "mutual_information_bits": [
            mutual_information_bits(codes[:, level], categories, size=size) for level in range(levels)
        ],
        "category_purity": [_purity(keys_of(codes[:, : level + 1], size), categories) for level in range(levels)],
    }
    if hidden is not None and codebooks is not None:
        quality["variance_explained"] = variance_explained(codes, hidden, codebooks)
    return quality


def warning_of(quality: Mapping[str, Any]) -> str | None:
    """Return, in one line with the remedy, that an index's S-IDs say little of its ads; None where they do not.

    Args:
        quality: as `index_quality` gives it; an index of before this figure has no `last_code_only`.
    """
    alike, collisions = quality.get("last_code_only", 0.0), quality["collision_rate"]
    if alike >= MOST_ALIKE:
        said = f"{alike:.0%} of the ads differ from each other in the last code only (the bound is {MOST_ALIKE:.0%})"
    elif collisions >= MOST_COLLISIONS:
        said = (
            f"{collisions:.0%} of the ads share all their codes with another one (the bound is {MOST_COLLISIONS:.0%})"
        )
    else:
        return None
    return (
        f"{said}: S-IDs say little of ads whose texts are equal or nearly so; import names, categories and attributes "
        "that tell them apart, or raise index.levels or index.codes if theirs do"
    )


def mutual_information_bits(codes: NDArray[np.int32], categories: NDArray[np.int32], *, size: int) -> float:
    """Return the mutual information of one level's code and the category, in bits.

    H(code) + H(category) - H(both), each entropy with Miller's correction of its bias, (cells in use - 1) / 2N nats
    (Miller 1955, "Note on the bias of information estimates"): without it, thousands of rare pairs look like
    information. Never below 0.

    Args:
        codes: int32[N].
        categories: int32[N], from 0.
        size: K.
    """
    kinds = int(categories.max()) + 1
    code, category = counts_of(codes.astype(np.int64), size), counts_of(categories.astype(np.int64), kinds)
    both = counts_of(codes.astype(np.int64) * kinds + categories, size * kinds)
    bias = (len(code) + len(category) - len(both) - 1) / (2 * len(codes) * np.log(2))
    return float(max(0.0, entropy_bits(code) + entropy_bits(category) - entropy_bits(both) + bias))


def variance_explained(
    codes: NDArray[np.int32], hidden: NDArray[np.float32], codebooks: NDArray[np.float32]
) -> list[float]:
    """Return, for each level, 1 - |z^ - sum of the code vectors up to it|^2 / |z^ - mean z^|^2, summed over ads.

    All 0 where the hidden embeddings are all equal. Below 0 where the codes are worse than the mean.

    Args:
        codes: int32[N, M].
        hidden: z^_a, float32[N, width].
        codebooks: float32[M, K, width].
    """
    mean, total, left = hidden.mean(axis=0, dtype=np.float64), 0.0, np.zeros(len(codebooks))
    for start in range(0, len(hidden), _CHUNK):
        residual = hidden[start : start + _CHUNK].astype(np.float64)
        total += float(np.square(residual - mean).sum())
        for level, codebook in enumerate(codebooks):
            residual -= codebook[codes[start : start + _CHUNK, level]]
            left[level] += np.square(residual).sum()
    return [float(1 - rest / total) if total else 0.0 for rest in left]


def _purity(prefixes: Ints, categories: NDArray[np.int32]) -> float:
    kinds = int(categories.max()) + 1
    if int(prefixes.max()) >= np.iinfo(np.int64).max // kinds:
        prefixes = np.unique(prefixes, return_inverse=True)[1]
    pairs, counts = _runs(np.sort(prefixes * kinds + categories))
    firsts = np.flatnonzero(np.diff(pairs // kinds, prepend=-1))
    return float(np.maximum.reduceat(counts, firsts).sum() / len(categories))


def counts_of(values: Ints, cells: int) -> Ints:
    """Return how often each value occurs that occurs.

    Args:
        values: whole numbers from 0.
        cells: all values are below it.
    """
    if cells > _CELLS:
        return _runs(np.sort(values))[1]
    counts = np.bincount(values, minlength=1)
    return counts[counts > 0]


def _runs(ordered: Ints) -> tuple[Ints, Ints]:
    """Return the distinct values of a sorted array and how often each occurs."""
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    return ordered[starts], np.diff(starts, append=len(ordered))


def entropy_bits(counts: Ints) -> float:
    """Return the entropy of what was counted, in bits."""
    shares = counts / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))
