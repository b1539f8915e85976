"""Lists of two sources: the best of either, scored by both, under any filter and over any revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadre.decoding.combined import engine as engine_module
from leadre.decoding.combined.engine import CANDIDATES, RankedEngine
from leadre.decoding.combined.features import AD_FEATURES, Candidates, gather
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.decoding.load import engine_of
from leadre.domain.retrieval import Beam
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.signals import signal_of

ADS = 150
KNOWN = 120
HISTORIES: list[list[int]] = [[], [7], [40, 2, 11], [33, 90, 33]]
RANKER = Ranker(bias=-0.4, user=np.array([1.5, -0.7, 0.9]), ad=np.array([0.3, -0.2, 0.7, 1.1, 0.4, -0.5]))


@pytest.fixture(scope="module")
def index(make_index: Callable[..., AdIndex]) -> AdIndex:
    return make_index(ADS)


@pytest.fixture(scope="module")
def signal(index: AdIndex, vocabulary: Vocabulary) -> IndexedSignal:
    return IndexedSignal(signal_of(index.ad_ids[:KNOWN]), index=index, vocabulary=vocabulary)


@pytest.fixture(scope="module")
def prompts(index: AdIndex, vocabulary: Vocabulary) -> list[list[int]]:
    random = np.random.default_rng(5)
    made = []
    for rows in HISTORIES:
        prompt = random.integers(0, 23, 3).tolist()
        for row in rows:
            prompt += [*vocabulary.sid_ids(index.sid_at(row)), *random.integers(0, 23, 2).tolist()]
        made.append(prompt)
    return made


@pytest.fixture(scope="module")
def make_alone(make_model: Callable[..., torch.nn.Module], vocabulary: Vocabulary) -> Callable[..., Engine]:
    def make(index: AdIndex, *, score: Score = "level", kind: str = "shared_prefix") -> Engine:
        return engine_of(make_model(), index=index, vocabulary=vocabulary, score=score, kind=kind)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def alone(make_alone: Callable[..., Engine], index: AdIndex) -> Engine:
    return make_alone(index)


@pytest.fixture(scope="module")
def ranked(alone: Engine, signal: IndexedSignal) -> RankedEngine:
    return RankedEngine(alone, signal=signal, ranker=RANKER)


def ids(lists: Sequence[Sequence[Beam]]) -> list[list[int]]:
    return [[beam.ad_id for beam in beams] for beams in lists]


def scores(beams: Sequence[Beam]) -> list[float]:
    return [beam.log_probability for beam in beams]


def test_candidates_are_the_best_of_both_and_each_is_scored_by_both(
    alone: Engine, signal: IndexedSignal, index: AdIndex, prompts: list[list[int]]
) -> None:
    live = np.random.default_rng(1).random(ADS) < 0.5
    filters = [None, LiveMask.of(live), None, LiveMask.of(live)]
    found = gather(alone, signal, prompts, each=9, filters=filters)
    everything = alone.generate(prompts, beam_width=ADS)
    best = alone.generate(prompts, beam_width=9, filters=filters)
    likely = signal.likely(signal.histories(prompts))
    for request, mask in enumerate(filters):
        rows = found.request == request
        leaves = found.leaf[rows]
        assert leaves.tolist() == sorted(set(leaves.tolist()))
        may = np.ones(ADS, np.bool_) if mask is None else live
        top = np.argsort(np.where(may, -likely[request], np.inf), kind="stable")[:9]
        assert set(leaves.tolist()) == {*top.tolist(), *index.rows(np.array(ids(best)[request])).tolist()}
        of_ad = dict(zip(ids(everything)[request], scores(everything[request]), strict=True))
        assert found.by_llm[rows] == pytest.approx([of_ad[ad] for ad in index.ad_ids[leaves].tolist()], abs=1e-4)
        assert found.by_signal[rows] == pytest.approx(np.log(likely[request, leaves]))


def shared(one: Sequence[int], other: Sequence[int]) -> float:
    pairs = zip(one, other, strict=True)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) / len(one)


def test_features_are_what_a_plain_loop_counts(
    alone: Engine, signal: IndexedSignal, index: AdIndex, prompts: list[list[int]]
) -> None:
    found = gather(alone, signal, prompts, each=40, filters=[None] * 4)
    likely = signal.likely(signal.histories(prompts))
    blend = signal.collaborative
    pairs = blend.co_visitation.pairs.toarray()
    lean = np.subtract(*blend._both(signal.histories(prompts)))
    number = {ad: at for at, ad in enumerate(blend.items.tolist())}
    codes = index.codes.tolist()
    for request, history in enumerate(HISTORIES):
        entropy = -(likely[request] * np.log(likely[request])).sum() / np.log(ADS)
        shares = np.exp(scores(alone.generate([prompts[request]], beam_width=40)[0]))
        shares /= shares.sum()
        doubt = -(shares * np.log(shares)).sum() / np.log(40)
        assert found.user[request] == pytest.approx([np.log1p(len(history)) / np.log1p(50), entropy, doubt], abs=1e-4)
    for request, leaf, ad in zip(found.request.tolist(), found.leaf.tolist(), found.ad.tolist(), strict=True):
        history, at = HISTORIES[request], number.get(int(index.ad_ids[leaf]))
        last = number.get(int(index.ad_ids[history[-1]])) if history else None
        after = 0.0 if at is None or last is None else float(pairs[last, at])
        assert dict(zip(AD_FEATURES, ad, strict=True)) == pytest.approx(
            {
                "popular": 0.0 if at is None else np.log1p(blend.popular[at]) / np.log1p(blend.popular.max()),
                "unknown": float(at is None),
                "sasrec": min(1.0, max(0.0, 0.5 + float(lean[request, signal.source[leaf]]) / 20)),
                "follows": np.log1p(after) / np.log1p(pairs.max()),
                "like_last": shared(codes[leaf], codes[history[-1]]) if history else 0.0,
                "like_any": max((shared(codes[leaf], codes[row]) for row in history), default=0.0),
            }
        )
    assert (found.ad >= 0).all()
    assert (found.ad <= 1).all()
    assert found.ad.max(axis=0).min() > 0  # every feature is there


def test_a_weight_of_0_gives_the_llm_s_lists_and_a_weight_of_1_the_signal_s(
    alone: Engine, signal: IndexedSignal, index: AdIndex, prompts: list[list[int]]
) -> None:
    by_llm, by_signal = (
        RankedEngine(alone, signal=signal, ranker=Ranker.of_weight(weight)).generate(prompts, beam_width=20)
        for weight in (0.0, 1.0)
    )
    assert ids(by_llm) == [beams[:20] for beams in ids(alone.generate(prompts, beam_width=ADS))]
    for row, likely in enumerate(np.log(signal.likely(signal.histories(prompts)))):
        assert scores(by_signal[row]) == pytest.approx(np.sort(likely)[::-1][:20])
        assert scores(by_signal[row]) == pytest.approx(likely[index.rows(np.array(ids(by_signal)[row]))])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), width=st.integers(1, 2 * CANDIDATES))
def test_lists_hold_live_ads_once_best_first_and_do_not_depend_on_what_is_asked_beside_them(
    ranked: RankedEngine, index: AdIndex, prompts: list[list[int]], seed: int, width: int
) -> None:
    random = np.random.default_rng(seed)
    live = [random.random(ADS) < share for share in random.choice([0, 0.02, 0.1, 0.5, 0.9], 4, replace=False)]
    filters = [LiveMask.of(mask) for mask in live]
    together = ranked.generate(prompts, beam_width=width, filters=filters)
    for prompt, mask, filter_, beams in zip(prompts, live, filters, together, strict=True):
        rows = index.rows(np.array(ids([beams])[0], np.int64))
        assert mask[rows].all()
        assert len(set(rows.tolist())) == len(beams) == min(width, mask.sum())
        assert scores(beams) == sorted(scores(beams), reverse=True)
        assert all(score <= 0 for score in scores(beams))
        again = ranked.generate([prompt], beam_width=width, filters=[filter_])[0]
        assert scores(beams) == pytest.approx(scores(again), abs=1e-4)


def test_over_another_revision_it_is_the_engine_made_for_it(
    ranked: RankedEngine, make_alone: Callable[..., Engine], make_index: Callable[..., AdIndex],
    index: AdIndex, signal: IndexedSignal, prompts: list[list[int]],
) -> None:  # fmt: skip
    grown = make_index(codes=index.codes[::2])
    made = RankedEngine(make_alone(grown), signal=signal.over(grown), ranker=RANKER)
    assert ranked.over(grown).generate(prompts, beam_width=30) == made.generate(prompts, beam_width=30)
    assert ranked.index_version == "tiny"
    assert ranked.score == "level"


def test_one_prompt_under_several_filters_gets_what_each_gives_alone(
    ranked: RankedEngine, prompts: list[list[int]]
) -> None:
    masks = [LiveMask.of(np.random.default_rng(row).random(ADS) < 0.4) for row in range(3)]
    together = ranked.generate([prompts[2]] * 3, beam_width=12, filters=masks)
    alone = [ranked.generate([prompts[2]], beam_width=12, filters=[mask])[0] for mask in masks]
    assert ids(together) == ids(alone)
    assert len({tuple(one) for one in ids(together)}) == 3


def test_many_prompts_over_many_ads_are_read_in_parts(
    ranked: RankedEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ranked.generate(prompts, beam_width=9)
    monkeypatch.setattr(engine_module, "_CELLS", 3 * ADS)
    assert ids(ranked.generate(prompts, beam_width=9)) == ids(whole)


def test_the_device_engine_gives_the_same_lists(
    ranked: RankedEngine, make_alone: Callable[..., Engine], index: AdIndex, signal: IndexedSignal,
    prompts: list[list[int]],
) -> None:  # fmt: skip
    there = RankedEngine(make_alone(index, kind="device"), signal=signal, ranker=RANKER)
    assert ids(there.generate(prompts, beam_width=20)) == ids(ranked.generate(prompts, beam_width=20))


def test_scores_that_depend_on_the_filter_are_refused(
    make_alone: Callable[..., Engine], index: AdIndex, signal: IndexedSignal
) -> None:
    with pytest.raises(ConfigError, match="collaborative_weight 0"):
        RankedEngine(make_alone(index, score="valid"), signal=signal, ranker=RANKER)


def test_no_request_has_no_candidates(alone: Engine, signal: IndexedSignal) -> None:
    none: Candidates = gather(alone, signal, [], each=5, filters=[])
    assert len(none.leaf) == len(RANKER.scores(none)) == 0
