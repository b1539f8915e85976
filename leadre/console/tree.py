"""Where the nodes of a search stand in its picture: a column a level, a row a path, in the trie's order. Ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leadre.explain import Level, Node

NODE_WIDTH, ROW, TOP, NAMES = 132, 32, 34, 250
"""Sizes in units of the picture; to the right of the last level stand the ads' names."""
NARROWEST, WIDEST, ROOM = 172, 230, 1160
"""Of a column, and of all of them with the names (a laptop's window)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A node in the picture: its left edge and its middle, and the same of what it comes from (None: the root).

    `kept`: whether it became a beam. `last`: whether it is a whole S-ID.
    """

    node: Node
    x: float
    y: float
    parent: tuple[float, float] | None
    kept: bool
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The picture: its size, its nodes, and the left edge of each level's column."""

    width: float
    height: float
    nodes: tuple[Placed, ...]
    columns: tuple[float, ...]


def tree(levels: Sequence[Level]) -> Tree:
    """Place the nodes of a search. A node stands in the middle of those that come from it."""
    column = max(NARROWEST, min(WIDEST, (ROOM - NAMES) / max(1, len(levels))))
    kept = {node.prefix: node for level in levels for node in level.kept}
    nodes = kept | {node.prefix: node for level in levels for node in level.pruned}
    rows: dict[tuple[int, ...], float] = {}
    free = 0
    # Longest first within a common beginning: what comes from a node is placed before it.
    below: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for prefix in sorted(nodes):
        below.setdefault(prefix[:-1], []).append(prefix)
    for prefix in _children_first(below):
        children = [rows[child] for child in below.get(prefix, ())]
        if not children:
            children, free = [float(free)], free + 1
        rows[prefix] = (children[0] + children[-1]) / 2

    def place(prefix: tuple[int, ...]) -> tuple[float, float]:
        return 4.0 + column * (len(prefix) - 1), TOP + ROW * (rows[prefix] + 0.5)

    placed = []
    for prefix in sorted(nodes, key=lambda prefix: (prefix in kept, prefix)):  # what was kept is drawn over the rest
        x, y = place(prefix)
        placed.append(
            Placed(
                node=nodes[prefix],
                x=x,
                y=y,
                parent=place(prefix[:-1]) if prefix[:-1] in rows else None,
                kept=prefix in kept,
                last=len(prefix) == len(levels),
            )
        )
    return Tree(
        width=4 + column * (len(levels) - 1) + NODE_WIDTH + NAMES,
        height=TOP + ROW * free + 8,
        nodes=tuple(placed),
        columns=tuple(4.0 + column * at for at in range(len(levels))),
    )


def _children_first(below: dict[tuple[int, ...], list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """Return all prefixes in the trie's order, each after what comes from it."""
    ordered: list[tuple[int, ...]] = []
    waiting = [(prefix, False) for prefix in reversed(below.get((), []))]
    while waiting:
        prefix, opened = waiting.pop()
        if opened:
            ordered.append(prefix)
            continue
        waiting.append((prefix, True))
        waiting += [(child, False) for child in reversed(below.get(prefix, []))]
    return ordered
