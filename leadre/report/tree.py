"""The beam tree as a picture: where each prefix of the best S-IDs stands, level by level. LEADRE §3.4, Algorithm 2."""

from __future__ import annotations

import math
from dataclasses import dataclass

from leadre.explain import ListExplanation
from leadre.explain.levels import Node

SHOWN = 8
"""Leaves drawn (ours)."""
_COLUMN, _ROW, _LEFT, _TOP = 132, 44, 58, 34
_WIDE, _HIGH = 96, 32
_NAMES = 236


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A prefix: its middle, its parent's (None below the root), and how thick the line from there is, in pixels.

    Args:
        node: of the search.
        rank: of a whole S-ID, its place in the last level; 0 of others.
        children: of those drawn, in the picture's order.
    """

    node: Node
    x: float
    y: float
    from_x: float
    from_y: float
    thickness: float
    rank: int
    children: tuple[Drawn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The picture: its size in pixels, the root's middle, all prefixes, the first level's, and what each column is of.

    Args:
        columns: x of the middle, letter of the level, candidates that were scored, beams that were kept.
    """

    width: float
    height: float
    root: tuple[float, float]
    nodes: tuple[Drawn, ...]
    first: tuple[Drawn, ...]
    columns: tuple[tuple[float, str, int, int], ...]
    box: tuple[float, float] = (_WIDE, _HIGH)


def draw(explanation: ListExplanation, *, shown: int = SHOWN) -> Tree | None:
    """Place the best S-IDs of the last level and their prefixes; None when the search had no level."""
    if not explanation.levels:
        return None
    last = explanation.levels[-1].kept[:shown]
    depth = len(explanation.levels)
    rank = {node.prefix: place for place, node in enumerate(last, start=1)}
    best = {
        prefix: min(place for leaf, place in rank.items() if leaf[: len(prefix)] == prefix)
        for leaf in rank
        for prefix in (leaf[:level] for level in range(1, depth + 1))
    }
    leaves = sorted(rank, key=lambda leaf: [best[leaf[:level]] for level in range(1, depth + 1)])
    known = {node.prefix: node for level in explanation.levels for node in level.kept}
    y = {leaf: _TOP + (place + 0.5) * _ROW for place, leaf in enumerate(leaves)}
    for level in range(depth - 1, -1, -1):
        for prefix in dict.fromkeys(leaf[:level] for leaf in leaves):
            children = dict.fromkeys(leaf[: level + 1] for leaf in leaves if leaf[:level] == prefix)
            y[prefix] = sum(y[child] for child in children) / len(children)

    def x(level: int) -> float:
        return _LEFT + _COLUMN * level - (_COLUMN - _WIDE) / 2 if level else _LEFT / 2

    made: dict[tuple[int, ...], Drawn] = {}
    for level in range(depth, 0, -1):
        for prefix in dict.fromkeys(leaf[:level] for leaf in leaves):
            below = dict.fromkeys(leaf[: level + 1] for leaf in leaves if leaf[:level] == prefix and level < depth)
            made[prefix] = Drawn(
                node=known[prefix],
                x=x(level),
                y=y[prefix],
                from_x=x(level - 1),
                from_y=y[prefix[:-1]],
                thickness=round(1 + 7 * math.sqrt(known[prefix].probability), 2),
                rank=rank.get(prefix, 0),
                children=tuple(made[child] for child in below),
            )
    return Tree(
        width=x(depth) + _WIDE / 2 + _NAMES,
        height=_TOP + len(leaves) * _ROW + 8,
        root=(x(0), y[()]),
        nodes=tuple(made[prefix] for prefix in sorted(made, key=len)),
        first=tuple(made[prefix] for prefix in dict.fromkeys(leaf[:1] for leaf in leaves)),
        columns=tuple(
            (x(at), chr(96 + at), level.candidates, len(level.kept))
            for at, level in enumerate(explanation.levels, start=1)
        ),
    )
