"""What a list that was written says of S-ID prefixes, without its search. LEADRE §3.4."""

from __future__ import annotations

import math
from collections.abc import Sequence

from leadre.domain.retrieval import Beam


def beam_tree(beams: Sequence[Beam]) -> list[tuple[tuple[int, ...], float]]:
    """Return the beams' prefixes with the probability that the list puts on each, in the trie's order.

    Returns:
        (prefix, probability) pairs, parents before children; probabilities are of the beams shown, summed to 1.
    """
    weights = [math.exp(beam.log_probability) for beam in beams]
    total = sum(weights)
    mass: dict[tuple[int, ...], float] = {}
    for beam, weight in zip(beams, weights, strict=True):
        for depth in range(1, len(beam.sid.codes) + 1):
            prefix = beam.sid.codes[:depth]
            mass[prefix] = mass.get(prefix, 0.0) + weight / total
    return sorted(mass.items())
