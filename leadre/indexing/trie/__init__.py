"""The trie over S-IDs: all of an index in a few flat arrays, and which ads are live. LEADRE §3.3."""

from leadre.indexing.trie.live_mask import LiveMask
from leadre.indexing.trie.trie import Children, Trie

__all__ = ["Children", "LiveMask", "Trie"]
