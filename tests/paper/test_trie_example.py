"""§3.3's example: three ads, inserted one by one, in Algorithm 1's dict trie and in the array trie."""

from __future__ import annotations

import numpy as np

from leadre.indexing.trie import Trie
from leadre.indexing.trie.reference import build_trie

ADS = {66: [12, 7, 4], 245: [12, 7, 14], 112: [12, 6, 22]}


def test_algorithm_1_builds_the_printed_trie() -> None:
    root = build_trie(list(ADS.items()))
    assert list(root.children) == [12]
    below_a12 = root.children[12]
    assert list(below_a12.children) == [7, 6]  # in the order of insertion
    assert {code: node.ad for code, node in below_a12.children[7].children.items()} == {4: 66, 14: 245}
    assert {code: node.ad for code, node in below_a12.children[6].children.items()} == {22: 112}
    assert root.ad is None
    assert below_a12.ad is None


def test_the_array_trie_has_the_same_paths() -> None:
    ad_ids = sorted(ADS, key=lambda ad: ADS[ad])
    trie = Trie.build(np.array([ADS[ad] for ad in ad_ids]))
    level_1 = trie.children(0, np.zeros(1, np.int64))
    assert level_1.code.tolist() == [12]
    level_2 = trie.children(1, level_1.node)
    assert level_2.code.tolist() == [6, 7]
    level_3 = trie.children(2, level_2.node)
    assert level_3.parent.tolist() == [0, 1, 1]
    assert level_3.code.tolist() == [22, 4, 14]
    assert [ad_ids[leaf] for leaf in level_3.node] == [112, 66, 245]
