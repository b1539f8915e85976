"""The worked example of LEADRE §3.4, with its table of scores."""

from __future__ import annotations

import pytest

from leadre.decoding.beam import constrained_beam_search
from leadre.indexing.trie.reference import build_trie

ADS = [(66, (12, 7, 4)), (245, (12, 7, 14)), (112, (12, 6, 22))]
# P(c_4) + P(c_14) = 1.2 in the paper: a table of scores, not a distribution.
P = {
    ((), 12): 0.6,
    ((12,), 7): 0.5,
    ((12,), 6): 0.4,
    ((12, 6), 22): 0.8,
    ((12, 7), 4): 0.8,
    ((12, 7), 14): 0.4,
}


def test_every_layer_has_the_papers_beams_and_scores() -> None:
    layers = constrained_beam_search(build_trie(ADS), lambda prefix, code: P[prefix, code], beam_width=2, levels=3)

    assert layers == [
        [((12,), pytest.approx(0.6))],
        [((12, 7), pytest.approx(0.6 * 0.5)), ((12, 6), pytest.approx(0.6 * 0.4))],
        [((12, 7, 4), pytest.approx(0.24)), ((12, 6, 22), pytest.approx(0.192))],
    ]


def test_the_third_candidate_of_the_last_layer_scores_as_printed() -> None:
    layers = constrained_beam_search(build_trie(ADS), lambda prefix, code: P[prefix, code], beam_width=3, levels=3)

    assert layers[-1][-1] == ((12, 7, 14), pytest.approx(0.3 * 0.4))


def test_the_answer_is_ads_66_and_112() -> None:
    root = build_trie(ADS)

    answer = constrained_beam_search(root, lambda prefix, code: P[prefix, code], beam_width=2, levels=3)[-1]

    leaves = [root.below(codes) for codes, _ in answer]
    assert [leaf.ad for leaf in leaves if leaf is not None] == [66, 112]
