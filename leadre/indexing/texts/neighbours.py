"""Do nearest neighbours share a category? The measure by which encoders are compared.

LEADRE §5.2.4, Table 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput

CUTOFFS = (1, 10, 50, 100)
"""The paper's K."""


def sample_per_category(categories: Sequence[str], *, per_category: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of up to `per_category` ads of each category, ascending. An empty category is none.

    Raises:
        InvalidInput: `per_category` is below 2, or fewer than 2 categories have 2 ads.
    """
    if per_category < 2:
        raise InvalidInput(f"per_category is {per_category}; an ad needs a neighbour of its category: at least 2")
    names = np.asarray(categories, dtype=np.str_)
    draw = np.random.default_rng(seed)
    chosen = [
        draw.permutation(rows)[:per_category]
        for name in np.unique(names[names != ""]).tolist()
        if len(rows := np.flatnonzero(names == name)) > 1
    ]
    if len(chosen) < 2:
        raise InvalidInput(f"{len(chosen)} categories have 2 ads; accuracy needs at least 2 such categories")
    return np.sort(np.concatenate(chosen))


def category_accuracy(
    embeddings: NDArray[np.float32],
    categories: Sequence[str],
    *,
    per_category: int = 100,
    cutoffs: Sequence[int] = CUTOFFS,
    seed: int,
    pool: Literal["sample", "all"] = "sample",
) -> dict[int, float]:
    """Return, for every K, the share of the Top-K nearest ads that have the query's category.

    Up to `per_category` ads of each category are the queries. The paper does not say whether their neighbours come from
    this sample or from the whole inventory. The sample is taken here: with 100 ads a category, 99 others have the
    query's, so Top-100 cannot pass 99 %, and accuracy falls steeply as K comes near them, which is what the paper's
    figures do (E5: 87 % at 50, 66 % at 100); an inventory with thousands of ads a category has no such edge.

    Args:
        embeddings: float32[N, d]; the inner product is the likeness, so unit vectors give the cosine.
        categories: N names; an ad whose category is "" is no query.
        per_category: queries of a category at most (paper: 100).
        cutoffs: the K.
        seed: of the sample.
        pool: where neighbours are sought: among the "sample" of queries, or among "all" N ads.

    Raises:
        InvalidInput: fewer than 2 categories with 2 ads, a row that is not finite, lengths that differ, or a K that is
            not below the number of ads in the pool.
    """
    if embeddings.ndim != 2 or len(embeddings) != len(categories):
        raise InvalidInput(f"embeddings of shape {embeddings.shape} do not fit {len(categories)} categories")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise InvalidInput("the embedding is not finite", row=int(np.argmin(finite)) + 1, column="embedding")
    queries = sample_per_category(categories, per_category=per_category, seed=seed)
    candidates = queries if pool == "sample" else np.arange(len(embeddings))
    farthest = max(cutoffs)
    if min(cutoffs) < 1 or farthest >= len(candidates):
        raise InvalidInput(
            f"K = {min(cutoffs)} to {farthest} of {len(candidates)} ads cannot be had; every K must be from 1 to "
            f"{len(candidates) - 1}: take more ads a category, or a smaller K"
        )
    names = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)[1]
    near = _nearest(embeddings, queries, candidates, k=farthest)
    same = names[near] == names[queries][:, None]
    return {k: float(same[:, :k].mean()) for k in cutoffs}


def _nearest(
    embeddings: NDArray[np.float32], queries: NDArray[np.int64], pool: NDArray[np.int64], *, k: int
) -> NDArray[np.int64]:
    """Return int64[Q, k]: rows of the k ads of the pool nearest to each query, itself left out, nearest first."""
    import faiss  # tenths of a second to import

    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings[pool], np.float32))
    _, found = index.search(np.ascontiguousarray(embeddings[queries], np.float32), k + 1)
    near: NDArray[np.int64] = pool[found]
    others = near != queries[:, None]
    others[others.all(axis=1), -1] = False  # the query is not in front of its equals
    return np.reshape(near[others], (len(queries), k))
