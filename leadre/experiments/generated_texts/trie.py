"""A trie over texts of any length, as token ids: which tokens may follow what has been generated.

LEADRE §5.2.5, Table 6 (ads generated as text). S-IDs have one length and a denser trie, leadre.indexing.trie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leadre.errors import InvalidInput
from leadre.indexing.trie import Children
from leadre.indexing.trie.ranges import Ints, spread

INSIDE = -1
"""The text of a node at which none ends."""


class TextTrie:
    """Distinct texts, the root node 0; no text may begin with another one, which an end token sees to.

    Args:
        texts: token ids, none empty.

    Raises:
        InvalidInput: no text, an empty one, one given twice, or one that begins with another.
    """

    def __init__(self, texts: Sequence[Sequence[int]]) -> None:
        below: list[dict[int, int]] = [{}]
        ends: dict[int, int] = {}
        for number, text in enumerate(texts):
            node = 0
            for token in text:
                if token not in below[node]:
                    below[node][token] = len(below)
                    below.append({})
                node = below[node][token]
            if node in ends or not text:
                raise InvalidInput(f"text {number} is empty or was given before; give distinct texts")
            ends[node] = number
        if not ends or any(below[node] for node in ends):
            raise InvalidInput("no text, or one that begins with another; let every text end in an end token")
        self._first = np.append(0, np.cumsum([len(children) for children in below]))
        pairs = [pair for children in below for pair in sorted(children.items())]
        self._tokens, self._nodes = np.array(pairs, np.int64).T
        self.text_of = np.full(len(below), INSIDE, np.int64)
        self.text_of[list(ends)] = list(ends.values())
        self.texts, self.longest = len(ends), max(map(len, texts))

    def children(self, nodes: Ints) -> Children:
        """Return all children of some nodes (int64[n]), grouped by parent, tokens ascending."""
        parent, at = spread(self._first[nodes], self._first[nodes + 1])
        return Children(parent=parent, code=self._tokens[at], node=self._nodes[at])
