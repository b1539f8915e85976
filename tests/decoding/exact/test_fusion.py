"""Two sources in one beam: histories from prompts, masses of nodes, and lists that are exactly the fused ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadre.collaborative.blend import Collaborative
from leadre.collaborative.leaves import EVEN_SHARE, nearest_known
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.fusion import Fusion, histories_in
from leadre.decoding.load import engine_of
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError
from leadre.evaluation.baselines import Histories
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.grow import grow
from leadre.indexing.trie.live_mask import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.signals import signal_of

ADS = 60
MakeIndex = Callable[..., AdIndex]
MakeModel = Callable[..., torch.nn.Module]


@pytest.fixture(scope="module")
def index(make_index: MakeIndex) -> AdIndex:
    return make_index(ADS)


@pytest.fixture(scope="module")
def prompts(index: AdIndex, vocabulary: Vocabulary) -> list[list[int]]:
    """Four users with different histories: none, one ad, three, and one of them twice."""
    random = np.random.default_rng(5)
    made = []
    for rows in ([], [7], [40, 2, 11], [33, 50, 33]):
        prompt = random.integers(0, 23, 3).tolist()
        for row in rows:
            prompt += [*vocabulary.sid_ids(index.sid_at(row)), *random.integers(0, 23, 2).tolist()]
        made.append(prompt)
    return made


def fused_engine(
    make_model: MakeModel,
    index: AdIndex,
    vocabulary: Vocabulary,
    *,
    fusion: Fusion | None,
    kind: str = "shared_prefix",
    score: Score = "level",
) -> Engine:
    model = make_model()
    return engine_of(model, index=index, vocabulary=vocabulary, score=score, kind=kind, fusion=fusion)  # type: ignore[arg-type]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many codes two S-IDs share from the first on."""
    length = 0
    while length < len(one) and one[length] == other[length]:
        length += 1
    return length


def nearest(index: AdIndex, row: int, known: Sequence[int]) -> int:
    """Of the known rows, the one that shares most codes; of those the nearest, the former of two."""
    codes = index.codes.tolist()
    return min(known, key=lambda other: (-common(codes[row], codes[other]), other > row, abs(other - row)))


def probabilities(signal: Collaborative, index: AdIndex, history: Sequence[int]) -> np.ndarray:
    """What the signal says of each ad of the index, from its definition."""
    said = np.exp(signal.log_probabilities(Histories.of([np.array(history, np.int64)]))[0].astype(float))
    of_ad = dict(zip(signal.items.tolist(), said.tolist(), strict=True))
    known = [row for row, ad in enumerate(index.ad_ids.tolist()) if ad in of_ad]
    likely = np.array([of_ad[int(index.ad_ids[nearest(index, row, known)])] for row in range(len(index))])
    return (1 - EVEN_SHARE) * likely / likely.sum() + EVEN_SHARE / len(index)


def ids(lists: Sequence[Sequence[Beam]]) -> list[list[int]]:
    return [[beam.ad_id for beam in beams] for beams in lists]


# What a prompt may hold: text, an S-ID of the index, one of random codes, a part of one, a single code of any level.
PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.lists(st.integers(0, 25), max_size=3)),
        st.tuples(st.just("ad"), st.integers(0, ADS - 1)),
        st.tuples(st.just("random"), st.tuples(*(st.integers(0, count - 1) for count in (7, 5, 6, 4)))),
        st.tuples(st.just("part"), st.tuples(st.integers(0, ADS - 1), st.integers(0, 3), st.integers(1, 4))),
        st.tuples(st.just("code"), st.integers(26, 47)),
    ),
    max_size=9,
)


@settings(max_examples=60)
@given(st.lists(PIECES, max_size=5))
def test_the_histories_of_prompts_are_those_that_a_plain_loop_reads(
    index: AdIndex, vocabulary: Vocabulary, drawn: list[list[tuple[str, object]]]
) -> None:
    offsets = vocabulary.level_offsets
    made: list[list[int]] = []
    for pieces in drawn:
        prompt: list[int] = []
        for kind, what in pieces:
            if kind == "text":
                prompt += what  # type: ignore[operator]
            elif kind == "ad":
                prompt += vocabulary.sid_ids(index.sid_at(what))  # type: ignore[arg-type]
            elif kind == "random":
                prompt += [offset + code for offset, code in zip(offsets, what, strict=True)]  # type: ignore[call-overload]
            elif kind == "part":
                row, first, end = what  # type: ignore[misc]
                prompt += vocabulary.sid_ids(index.sid_at(row))[first:end]
            else:
                prompt.append(what)  # type: ignore[arg-type]
        made.append(prompt)
    ad_of = {tuple(codes): ad for codes, ad in zip(index.codes.tolist(), index.ad_ids.tolist(), strict=True)}
    wanted = []
    for prompt in made:
        read = []
        for at in range(len(prompt) - 3):
            tokens = prompt[at : at + 4]
            if [vocabulary.level_of(token) for token in tokens] == [0, 1, 2, 3]:
                read.append(ad_of.get(tuple(vocabulary.code_of(token) for token in tokens)))
        wanted.append([ad for ad in read if ad is not None])
    found = histories_in(made, index=index, vocabulary=vocabulary)
    assert [
        found.items[low:high].tolist() for low, high in zip(found.offsets, found.offsets[1:], strict=False)
    ] == wanted


def test_an_sid_that_two_prompts_share_between_them_is_nobody_s(index: AdIndex, vocabulary: Vocabulary) -> None:
    sid = vocabulary.sid_ids(index.sid_at(17))
    found = histories_in([[4, *sid[:2]], [*sid[2:], *sid], []], index=index, vocabulary=vocabulary)
    assert found.offsets.tolist() == [0, 0, 1, 1]
    assert found.items.tolist() == [int(index.ad_ids[17])]


@pytest.mark.parametrize("known", [ADS, 23, 1])
def test_the_masses_of_nodes_are_sums_over_the_ads_below_them(
    index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]], known: int
) -> None:
    signal = signal_of(np.random.default_rng(known).permutation(index.ad_ids)[:known])
    masses = Fusion(signal, weight=1.0, index=index, vocabulary=vocabulary).read(prompts, request_of=np.array([3, 2]))
    histories = [[1033, 1050, 1033], [1040, 1002, 1011]]
    nodes = np.zeros(1, np.int64)
    for depth in range(1, 5):
        nodes = index.trie.children(depth - 1, nodes).node
        prefixes = np.unique(index.codes[:, :depth], axis=0).tolist()
        for request, history in enumerate(histories):
            likely = probabilities(signal, index, history)
            sums = [
                sum(likely[row] for row, codes in enumerate(index.codes[:, :depth].tolist()) if codes == prefix)
                for prefix in prefixes
            ]
            rows = np.full(len(nodes), request)
            found = np.exp(masses.fuse(np.zeros(len(nodes)), request=rows, depth=depth, nodes=nodes))
            assert found == pytest.approx(sums, rel=1e-5)
            assert found.sum() == pytest.approx(1.0)
    assert masses.of_leaves(3, np.array([4, 58])) == pytest.approx(
        np.log(probabilities(signal, index, histories[0]))[[4, 58]], rel=1e-5
    )


@given(st.sets(st.integers(-3, ADS + 2), min_size=1, max_size=9))
def test_the_nearest_known_ad_shares_most_of_the_sid(index: AdIndex, known: set[int]) -> None:
    items = np.array(sorted(1000 + row for row in known))
    rows = [row for row in known if 0 <= row < ADS]
    wanted = [sorted(known).index(nearest(index, row, rows)) if rows else 0 for row in range(ADS)]
    found = nearest_known(index, items).tolist()
    assert found == wanted
    assert all(items[found[row]] == 1000 + row for row in rows)


@pytest.mark.parametrize("weight", [0.35, 1.0])
@pytest.mark.parametrize("kind", ["hf", "shared_prefix"])
def test_with_room_for_all_ads_the_list_is_exactly_the_fused_ranking(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]], kind: str, weight: float
) -> None:
    signal = signal_of(index.ad_ids[::2])
    fusion = Fusion(signal, weight=weight, index=index, vocabulary=vocabulary)
    alone, fused = (
        fused_engine(make_model, index, vocabulary, fusion=source, kind=kind).generate(prompts, beam_width=ADS)
        for source in (None, fusion)
    )
    histories = [[], [1007], [1040, 1002, 1011], [1033, 1050, 1033]]
    for by_llm, found, history in zip(alone, fused, histories, strict=True):
        likely = dict(zip(index.ad_ids.tolist(), np.log(probabilities(signal, index, history)).tolist(), strict=True))
        wanted = {beam.ad_id: (1 - weight) * beam.log_probability + weight * likely[beam.ad_id] for beam in by_llm}
        assert {beam.ad_id: beam.log_probability for beam in found} == pytest.approx(wanted, abs=1e-4)
        scores = [beam.log_probability for beam in found]
        assert scores == sorted(scores, reverse=True)
        assert [wanted[beam.ad_id] for beam in found] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-4)
    assert ids(fused) != ids(alone)


def test_a_weight_of_nothing_gives_the_llm_s_lists(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]]
) -> None:
    none, half = (
        Fusion(signal_of(index.ad_ids), weight=weight, index=index, vocabulary=vocabulary) for weight in (0.0, 0.5)
    )
    alone, without, half_lists = (
        fused_engine(make_model, index, vocabulary, fusion=fusion).generate(prompts, beam_width=7)
        for fusion in (None, none, half)
    )
    assert without == alone
    assert ids(half_lists) != ids(alone)


def test_only_live_ads_are_retrieved_and_prompts_together_get_what_each_gets_alone(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]]
) -> None:
    fusion = Fusion(signal_of(index.ad_ids), weight=0.6, index=index, vocabulary=vocabulary)
    engine = fused_engine(make_model, index, vocabulary, fusion=fusion)
    few, others = index.live_mask(index.ad_ids[[3, 8, 21, 44]]), index.live_mask(index.ad_ids[::3])
    asked: list[tuple[list[int], LiveMask | None]] = [
        (prompts[2], few), (prompts[0], None), (prompts[2], others), (prompts[3], few), (prompts[1], others)
    ]  # fmt: skip
    together = engine.generate([prompt for prompt, _ in asked], beam_width=6, filters=[mask for _, mask in asked])
    alone = [engine.generate([prompt], beam_width=6, filters=[mask])[0] for prompt, mask in asked]
    assert ids(together) == ids(alone)
    for beams, again in zip(together, alone, strict=True):
        scores = [beam.log_probability for beam in again]
        assert [beam.log_probability for beam in beams] == pytest.approx(scores, abs=1e-4)
    assert {beam.ad_id for beam in together[0]} == {beam.ad_id for beam in together[3]} == {1003, 1008, 1021, 1044}
    assert ids(together)[0] != ids(together)[3]  # one filter, two histories
    assert set(ids(together)[2] + ids(together)[4]) <= set(index.ad_ids[::3].tolist())


def test_over_a_grown_index_new_ads_are_as_likely_as_their_neighbours(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]]
) -> None:
    taken = {tuple(codes) for codes in index.codes.tolist()}
    new = []
    for codes in index.codes.tolist():  # the first ads that leave a last code free, each with one ad more beside it
        free = [code for code in range(4) if (*codes[:3], code) not in taken]
        if free and len(new) < 3 and sum(known[:3] == tuple(codes[:3]) for known in taken) == 1:
            new.append(((*codes[:3], free[0]), codes))
    grown = grow(
        index,
        ad_ids=np.array([2000, 2001, 2002]),
        codes=np.array([codes for codes, _ in new], np.int32),
        first_categories=["all"] * 3,
        second_categories=["all"] * 3,
        advertiser_ids=np.zeros(3, np.int64),
        embeddings=np.zeros((3, 3), np.float32),
    )
    neighbours = index.ad_ids[index.trie.find(np.array([codes for _, codes in new], np.int32))]
    fusion = Fusion(signal_of(index.ad_ids), weight=1.0, index=index, vocabulary=vocabulary)
    masses = fusion.over(grown).read(prompts, request_of=np.arange(4))
    for prompt in range(4):
        mine, its = (masses.of_leaves(prompt, grown.rows(ads)) for ads in (np.array([2000, 2001, 2002]), neighbours))
        assert mine == pytest.approx(its)
        assert prompt == 0 or len(np.unique(mine.round(9))) == 3  # without a history only what is popular counts
    engine = fused_engine(make_model, index, vocabulary, fusion=fusion)
    lists = engine.over(grown).generate(prompts, beam_width=63)
    assert all({2000, 2001, 2002} < {beam.ad_id for beam in beams} for beams in lists)
    new_fusion = Fusion(signal_of(index.ad_ids), weight=1.0, index=grown, vocabulary=vocabulary)
    assert lists == fused_engine(make_model, grown, vocabulary, fusion=new_fusion).generate(prompts, beam_width=63)


@pytest.mark.parametrize(("score", "kind"), [("valid", "hf"), ("level", "device")])
def test_what_cannot_fuse_is_refused_with_the_remedy(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, score: Score, kind: str
) -> None:
    fusion = Fusion(signal_of(index.ad_ids), weight=0.5, index=index, vocabulary=vocabulary)
    with pytest.raises(ConfigError, match="collaborative_weight 0"):
        fused_engine(make_model, index, vocabulary, fusion=fusion, kind=kind, score=score)


@pytest.mark.parametrize("known", [[2, 11, 40], [2, 40, 11, 30]])
def test_ads_that_may_not_come_again_are_last_and_no_number_is_lost(
    make_model: MakeModel, index: AdIndex, vocabulary: Vocabulary, prompts: list[list[int]], known: list[int]
) -> None:
    signal = signal_of(index.ad_ids[known], seen="leave_out")
    fusion = Fusion(signal, weight=1.0, index=index, vocabulary=vocabulary)
    engine = fused_engine(make_model, index, vocabulary, fusion=fusion)
    beams = engine.generate([prompts[2]], beam_width=ADS)[0]  # this user had ads 1040, 1002 and 1011
    scores = {beam.ad_id: beam.log_probability for beam in beams}
    assert np.isfinite(list(scores.values())).all()
    if len(known) == 3:  # nothing is left that it could speak for
        assert list(scores.values()) == pytest.approx([beams[0].log_probability] * ADS)
    else:
        assert [scores[ad] for ad in (1002, 1011, 1040)] == pytest.approx([np.log(EVEN_SHARE / ADS)] * 3)
        assert scores[1030] == pytest.approx(beams[0].log_probability)
