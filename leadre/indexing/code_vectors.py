"""Vectors of codes, read off an index: where the embeddings of code tokens can start.

LEADRE §3.2, Eq. 4: z_a is the sum of the vectors of an ad's codes. A code's vector is the mean of what the levels
before leave over of its ads' z_a, which for k-means codebooks is the codebook's own.
"""

from __future__ import annotations

import numpy as np

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.quantisers.quantiser import Floats


def code_vectors(index: AdIndex) -> list[Floats]:
    """Return float32[codes of the level, width] for each level but the disambiguation codes'; 0 for unused codes.

    Args:
        index: with at least one ad.
    """
    left = index.embeddings.astype(np.float64) - index.embeddings.mean(axis=0, dtype=np.float64)
    vectors = []
    for level, count in enumerate(index.code_counts[:-1]):
        codes = index.codes[:, level]
        sums = np.zeros((count, left.shape[1]))
        np.add.at(sums, codes, left)
        means = sums / np.maximum(np.bincount(codes, minlength=count), 1)[:, None]
        left = left - means[codes]
        vectors.append(means.astype(np.float32))
    return vectors
