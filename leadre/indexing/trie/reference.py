"""The trie as the paper prints it: nested dictionaries, one S-ID at a time. The reference of leadre.indexing.trie.

LEADRE §3.3, Algorithm 1. Where the paper writes `c` for the current node it means `cur`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leadre.errors import InvalidInput


@dataclass(slots=True)
class Node:
    """A node: its children by code, and the ad whose S-ID ends here (None: no S-ID does)."""

    children: dict[int, Node] = field(default_factory=dict)
    ad: int | None = None

    def below(self, prefix: Sequence[int]) -> Node | None:
        """Return the node that a prefix leads to, or None."""
        node: Node | None = self
        for code in prefix:
            node = node.children.get(code) if node is not None else None
        return node


def build_trie(sids: Sequence[tuple[int, Sequence[int]]]) -> Node:
    """Return the root of the trie of (ad, codes) pairs.

    Raises:
        InvalidInput: two ads have the same S-ID.
    """
    root = Node()  # 1: create a head node
    for ad, codes in sids:  # 2
        current = root  # 3
        for code in codes:  # 4
            if code not in current.children:  # 5
                current.children[code] = Node()  # 6, 7
            current = current.children[code]  # 9
        if current.ad is not None:
            raise InvalidInput(f"ads {current.ad} and {ad} have the same S-ID {list(codes)}")
        current.ad = ad  # 11: mark as the end of the ad
    return root  # 13
