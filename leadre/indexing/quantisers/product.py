"""Product codes: every level quantises principal components of its own, so that all carry about the same information.

LEADRE §6, future work (2): the RQ-VAE "tends to allocate most information to the first codebook". Here each principal
component is given to one level so that the products of the levels' variances are alike, which makes their entropies
alike for Gaussian data: the eigenvalue allocation of parametric optimised product quantisation (Ge, He, Ke, Sun 2013,
"Optimized Product Quantization for Approximate Nearest Neighbor Search"). A codebook that is 0 outside its
own components makes residual quantisation the same as product quantisation, so the result is an ordinary `Quantiser`.

With the paper's width of 8 each of 4 levels sees 2 components. A larger width keeps more of an ad and collides more
often, on some inventories far more (benchmarks/bench_index.py has both): measure before you widen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leadre.errors import ConfigError
from leadre.indexing.quantisers.quantiser import Floats, Quantiser, check_embeddings
from leadre.indexing.quantisers.residual_kmeans import centres, principal_components, sample


def fit_product(embeddings: Floats, *, levels: int, codes: int, width: int, seed: int) -> Quantiser:
    """Fit the quantiser: principal components, shared out among the levels, then k-means in each level's own.

    Of more than 256 x K ads a sample is used.

    Args:
        embeddings: x_a, float32[N, d], N >= 1.
        levels: M.
        codes: K. More than there are distinct ads is allowed: the rest stay unused.
        width: principal components kept, at least M and at most d.
        seed: of the sample and of k-means.

    Raises:
        InvalidInput: a value that is not finite.
        ConfigError: `width` is below `levels`, or exceeds d.
    """
    check_embeddings(embeddings)
    if width < levels:
        raise ConfigError(
            f"index.width={width} leaves a level of index.levels={levels} without a component; raise the width to a "
            "multiple of the levels"
        )
    ads = sample(embeddings, codes, seed)
    weight, bias = principal_components(ads, width)
    hidden = ads @ weight.T + bias
    codebooks = np.zeros((levels, codes, width), np.float32)
    for level, components in enumerate(allocate(hidden.var(axis=0), levels)):
        codebooks[level][:, components] = centres(np.ascontiguousarray(hidden[:, components]), codes, seed + level)
    return Quantiser(layers=((weight, bias),), codebooks=codebooks)


def allocate(variances: Floats, levels: int) -> list[NDArray[np.int64]]:
    """Share components out so that the products of each level's variances are alike; the largest sum comes first.

    From the largest variance down, each component goes to the level with the smallest product of those that have room;
    all get as many components, or one more (Ge et al.).

    Args:
        variances: float32[width], not negative, width >= levels.
        levels: M.

    Returns:
        The components of each level, ascending.
    """
    tiny = max(float(variances.max()), 1e-30) * 1e-12
    logs = np.log(
        np.maximum(variances.astype(np.float64), tiny) / tiny
    )  # all >= 0: a component never shrinks a product
    rooms = [len(variances) // levels + (level < len(variances) % levels) for level in range(levels)]
    taken: list[list[int]] = [[] for _ in range(levels)]
    for component in np.argsort(-variances, kind="stable").tolist():
        open_levels = [level for level in range(levels) if len(taken[level]) < rooms[level]]
        taken[min(open_levels, key=lambda level: logs[taken[level]].sum())].append(component)
    taken.sort(key=lambda components: -float(variances[components].sum()))
    return [np.array(sorted(components), np.int64) for components in taken]
