from __future__ import annotations

import pytest

from leadre.decoding.beam import constrained_beam_search
from leadre.errors import InvalidInput, NoValidContinuation
from leadre.indexing.trie.reference import Node, build_trie


def test_an_empty_trie_gives_empty_layers() -> None:
    assert constrained_beam_search(Node(), lambda *_: 1.0, beam_width=3, levels=2) == [[], []]


def test_equal_scores_keep_the_order_of_the_codes() -> None:
    root = build_trie([(1, (2, 0)), (2, (0, 1)), (3, (1, 5)), (4, (0, 0))])

    layers = constrained_beam_search(root, lambda *_: 0.5, beam_width=3, levels=2)

    assert [codes for codes, _ in layers[-1]] == [(0, 0), (0, 1), (1, 5)]


def test_greedy_pruning_can_lose_the_best_ad_and_that_is_algorithm_2() -> None:
    table = {((), 0): 0.6, ((), 1): 0.4, ((0,), 0): 0.5, ((0,), 1): 0.5, ((1,), 0): 1.0}
    root = build_trie([(1, (0, 0)), (2, (0, 1)), (3, (1, 0))])

    narrow = constrained_beam_search(root, lambda prefix, code: table[prefix, code], beam_width=1, levels=2)
    wide = constrained_beam_search(root, lambda prefix, code: table[prefix, code], beam_width=2, levels=2)

    assert narrow[-1] == [((0, 0), 0.3)]
    assert wide[-1][0] == ((1, 0), 0.4)


def test_an_s_id_that_ends_early_is_a_broken_trie() -> None:
    with pytest.raises(NoValidContinuation, match=r"\(3,\) has no children but S-IDs have 2 codes"):
        constrained_beam_search(build_trie([(1, (3,))]), lambda *_: 1.0, beam_width=2, levels=2)


def test_a_beam_width_below_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one beam"):
        constrained_beam_search(Node(), lambda *_: 1.0, beam_width=0, levels=2)
