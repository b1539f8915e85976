"""Constrained decoding as the paper prints it: plain Python, one node at a time. The reference for every engine.

LEADRE §3.4, Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable

from leadre.errors import InvalidInput, NoValidContinuation
from leadre.indexing.trie.reference import Node

Hypothesis = tuple[tuple[int, ...], float]
"""The codes so far and their score, the product of their probabilities."""


def constrained_beam_search(
    root: Node,
    probability: Callable[[tuple[int, ...], int], float],
    *,
    beam_width: int,
    levels: int,
) -> list[list[Hypothesis]]:
    """Expand the beams layer by layer (Algorithm 2).

    Two readings of the printed algorithm, both forced by its worked example: a list's score is the product of its
    codes' probabilities, and the B copies of the head count as one (they would return the same ads B times).

    Args:
        root: the trie of all ads that may be generated (Algorithm 1).
        probability: P_LLM(code | prefix), called as `probability(prefix, code)`.
        beam_width: B.
        levels: M + 1.

    Returns:
        For each layer 1..M+1 its at most B hypotheses, best first; equal scores keep the order of their prefixes,
        then of their codes. The last layer is the answer; all layers are empty for an empty trie.

    Raises:
        InvalidInput: `beam_width` below 1.
        NoValidContinuation: a hypothesis shorter than `levels` stands on a leaf.
    """
    if beam_width < 1:
        raise InvalidInput(f"{beam_width}; ask for at least one beam", column="beam_width")
    beams: list[tuple[Hypothesis, Node]] = [(((), 1.0), root)] if root.children else []
    layers = []
    for _ in range(levels):
        candidates = []
        for (prefix, score), node in beams:
            if not node.children:
                raise NoValidContinuation(f"{prefix} has no children but S-IDs have {levels} codes: rebuild the trie")
            for code, child in sorted(node.children.items()):
                candidates.append((((*prefix, code), score * probability(prefix, code)), child))
        beams = sorted(candidates, key=lambda candidate: -candidate[0][1])[:beam_width]
        layers.append([hypothesis for hypothesis, _ in beams])
    return layers
