"""One contract for all engines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from leadre.decoding.beam import constrained_beam_search
from leadre.decoding.combined.engine import RankedEngine
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.diversity import VariedEngine
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.fusion import IndexedSignal
from leadre.decoding.load import engine_of
from leadre.decoding.stub import StubEngine
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel, InvalidInput, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.indexing.trie.reference import build_trie
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.remote_server import ServedEngine, Shelf, running
from tests.decoding.signals import signal_of

KINDS = ["device", "hf", "shared_prefix", "stub", "varied", "ranked", "remote"]
MODEL_KINDS: list[Any] = ["device", "hf", "shared_prefix"]
SCORES: list[Score] = ["raw", "level", "valid"]
MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Shelf, str]]:
    shelf = Shelf()
    with running(shelf) as url:
        yield shelf, url


@pytest.fixture
def make_engine(
    vocabulary: Vocabulary, make_model: Callable[..., PreTrainedModel], server: tuple[Shelf, str]
) -> Iterator[MakeEngine]:
    shelf, url = server

    def make(kind: Any, index: AdIndex, *, score: Score = "level", seed: int = 0) -> Engine:
        if kind == "remote":
            there = make("stub", index, seed=seed)
            return ServedEngine(shelf, url, there, index=index, vocabulary_size=vocabulary.size)
        if kind == "varied":
            return VariedEngine(make("stub", index, seed=seed), index=index, share=0.3)
        if kind == "ranked":  # by the LLM alone: what the signal says of an ad depends on what the index holds
            signal = IndexedSignal(signal_of(np.arange(1000, 1060)), index=index, vocabulary=vocabulary)
            return RankedEngine(make("stub", index, seed=seed), signal=signal, ranker=Ranker.of_weight(0.0))
        if kind == "stub":
            return StubEngine(index, vocabulary_size=vocabulary.size, seed=seed, longest_prompt=45)
        return engine_of(make_model(seed=seed), index=index, vocabulary=vocabulary, score=score, kind=kind)

    yield make
    shelf.close()


def leaves_of(beams: Sequence[Beam], index: AdIndex) -> list[int]:
    return [int(np.flatnonzero(index.ad_ids == beam.ad_id)[0]) for beam in beams]


def flat(answers: list[list[Beam]]) -> list[list[tuple[tuple[int, ...], int]]]:
    return [[(beam.sid.codes, beam.ad_id) for beam in beams] for beams in answers]


def log_probabilities(answers: list[list[Beam]]) -> list[float]:
    return [beam.log_probability for beams in answers for beam in beams]


def reference(
    model: PreTrainedModel, vocabulary: Vocabulary, index: AdIndex, prompt: list[int], *, score: Score, width: int
) -> list[tuple[tuple[int, ...], float]]:
    """Algorithm 2 over the model's own logits, one whole forward pass a prefix."""
    seen: dict[tuple[int, ...], torch.Tensor] = {}

    def probability(prefix: tuple[int, ...], code: int) -> float:
        if prefix not in seen:
            offsets = vocabulary.level_offsets
            tokens = prompt + [offset + c for offset, c in zip(offsets, prefix, strict=False)]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].double()
            start, count = offsets[len(prefix)], vocabulary.code_counts[len(prefix)]
            if score == "valid":
                valid = torch.full((count,), -torch.inf, dtype=torch.float64)
                codes = list(root.below(prefix).children)  # type: ignore[union-attr]
                valid[codes] = logits[start : start + count][codes]
                seen[prefix] = valid.softmax(0)
            elif score == "level":
                seen[prefix] = logits[start : start + count].softmax(0)
            else:
                seen[prefix] = logits.softmax(0)[start : start + count]
        return float(seen[prefix][code])

    root = build_trie([(ad, codes) for ad, codes in enumerate(index.codes.tolist())])
    return constrained_beam_search(root, probability, beam_width=width, levels=index.trie.levels)[-1]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryEngine:
    def test_the_answer_is_live_ads_best_first_and_no_more_than_asked(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex], make_prompts: Callable[..., Any]
    ) -> None:
        index = make_index(90)
        prompts = make_prompts(5)
        live = [np.random.default_rng(row).random(90) < 0.4 for row in range(5)]

        answers = make_engine(kind, index).generate(prompts, beam_width=7, filters=[LiveMask.of(mask) for mask in live])

        for beams, mask in zip(answers, live, strict=True):
            leaves = leaves_of(beams, index)
            assert mask[leaves].all()
            assert len(set(leaves)) == len(beams) == 7
            assert [beam.sid.codes for beam in beams] == [tuple(codes) for codes in index.codes[leaves].tolist()]
            scores = [beam.log_probability for beam in beams]
            assert scores == sorted(scores, reverse=True)
            assert scores[0] <= 0

    def test_ten_thousand_beams_are_all_in_the_live_inventory(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex], make_prompts: Callable[..., Any]
    ) -> None:
        index = make_index(400, seed=1)
        live = np.random.default_rng(2).random(400) < 0.5
        prompts = make_prompts(80, seed=3)

        answers = make_engine(kind, index).generate(prompts, beam_width=128, filters=[LiveMask.of(live)] * 80)

        beams = [beam for answer in answers for beam in answer]
        assert len(beams) == 80 * 128
        inventory = set(index.ad_ids[live].tolist())
        assert all(beam.ad_id in inventory for beam in beams)

    def test_a_filter_gives_what_a_trie_of_the_live_ads_gives(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex], make_prompts: Callable[..., Any]
    ) -> None:
        index = make_index(150, seed=4)
        prompts = make_prompts(3, seed=5)
        live = [np.random.default_rng(row).random(150) < share for row, share in enumerate((0.5, 0.1, 0.03))]

        filtered = make_engine(kind, index).generate(
            [*prompts, prompts[0]], beam_width=9, filters=[*(LiveMask.of(mask) for mask in live), None]
        )

        for prompt, mask, beams in zip(prompts, live, filtered[:3], strict=True):
            rebuilt = make_engine(kind, make_index(codes=index.codes[mask])).generate([prompt], beam_width=9)
            assert [beam.sid for beam in beams] == [beam.sid for beam in rebuilt[0]]
            assert log_probabilities([beams]) == pytest.approx(log_probabilities(rebuilt), abs=1e-4)
        whole = make_engine(kind, index).generate([prompts[0]], beam_width=9)
        assert flat(filtered[3:]) == flat(whole)

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seed=st.integers(0, 10**6), ads=st.integers(1, 200), width=st.integers(1, 12))
    def test_four_filters_in_a_batch_give_what_four_rebuilt_tries_give(
        self,
        kind: str,
        seed: int,
        ads: int,
        width: int,
        make_engine: MakeEngine,
        make_index: Callable[..., AdIndex],
        make_prompts: Callable[..., Any],
    ) -> None:
        random = np.random.default_rng(seed)
        index = make_index(ads, seed=seed)
        prompts = make_prompts(4, seed=seed)
        live = [random.random(ads) < share for share in random.choice([0, 0.02, 0.1, 0.4, 0.9, 1], 4, replace=False)]

        together = make_engine(kind, index, seed=seed).generate(
            prompts, beam_width=width, filters=[LiveMask.of(mask) for mask in live]
        )

        for prompt, mask, beams in zip(prompts, live, together, strict=True):
            rebuilt = make_engine(kind, make_index(codes=index.codes[mask]), seed=seed)
            alone = rebuilt.generate([prompt], beam_width=width)
            assert [beam.sid for beam in beams] == [beam.sid for beam in alone[0]]
            assert all(mask[leaf] for leaf in leaves_of(beams, index))
            assert log_probabilities([beams]) == pytest.approx(log_probabilities(alone), abs=1e-4)

    def test_a_batch_gives_what_single_prompts_give(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex], make_prompts: Callable[..., Any]
    ) -> None:
        engine = make_engine(kind, make_index())
        prompts = make_prompts(6, seed=6)

        together = engine.generate(prompts, beam_width=5)
        alone = [engine.generate([prompt], beam_width=5)[0] for prompt in prompts]

        assert flat(together) == flat(alone)
        assert log_probabilities(together) == pytest.approx(log_probabilities(alone), abs=1e-4)

    def test_fewer_live_ads_than_beams_give_all_of_them(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        index = make_index(30)
        live = np.zeros(30, np.bool_)
        live[[3, 11, 29]] = True

        answer = make_engine(kind, index).generate([[1, 2], [3]], beam_width=8, filters=[LiveMask.of(live), None])

        assert sorted(leaves_of(answer[0], index)) == [3, 11, 29]
        assert len(answer[1]) == 8

    def test_no_live_ad_gives_an_empty_list_beside_full_ones(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        nothing = LiveMask.of(np.zeros(30, np.bool_))
        engine = make_engine(kind, make_index(30))

        assert [
            len(beams) for beams in engine.generate([[1], [2], [3]], beam_width=4, filters=[None, nothing, None])
        ] == [
            4,
            0,
            4,
        ]
        assert engine.generate([[1]], beam_width=4, filters=[nothing]) == [[]]

    def test_an_empty_index_gives_empty_lists(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        assert make_engine(kind, make_index(0)).generate([[1], [2, 3]], beam_width=4) == [[], []]

    def test_no_prompt_gives_no_answer(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        assert make_engine(kind, make_index()).generate([], beam_width=4) == []

    def test_over_another_revision_it_generates_the_new_ads_and_leaves_the_old_engine_alone(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex], make_prompts: Callable[..., Any]
    ) -> None:
        whole = make_index(90, seed=3)
        engine = make_engine(kind, make_index(codes=whole.codes[::2]))
        before = engine.generate(make_prompts(2), beam_width=80)

        grown = engine.over(whole).generate(make_prompts(2), beam_width=100)

        assert [len(beams) for beams in grown] == [90, 90]
        assert flat(engine.generate(make_prompts(2), beam_width=80)) == flat(before)
        assert [len(beams) for beams in before] == [45, 45]

    def test_an_index_of_another_version_is_refused(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        index = make_index()
        with pytest.raises(ReleaseMismatch, match="under index tiny, this is index other"):
            make_engine(kind, index).over(dataclasses.replace(index, version="other"))

    def test_one_prompt_under_several_filters_gives_what_each_gives_alone(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        engine = make_engine(kind, make_index(80, seed=6))
        masks = [LiveMask.of(np.random.default_rng(row).random(80) < 0.4) for row in range(3)]
        prompts = [[4, 5, 6], [7], [4, 5, 6], [4, 5, 6]]
        filters = [masks[0], None, masks[1], masks[2]]

        together = engine.generate(prompts, beam_width=6, filters=filters)

        for prompt, mask, beams in zip(prompts, filters, together, strict=True):
            alone = engine.generate([prompt], beam_width=6, filters=[mask])
            assert flat([beams]) == flat(alone)
            assert log_probabilities([beams]) == pytest.approx(log_probabilities(alone), abs=1e-4)

    def test_the_engine_names_its_index(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        assert make_engine(kind, make_index()).index_version == "tiny"

    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            ({"prompts": [[1], []], "beam_width": 2}, "row 2.*empty"),
            ({"prompts": [[1] * 46], "beam_width": 2}, "46 tokens, the model takes 45"),
            ({"prompts": [[1], [2], [48]], "beam_width": 2}, "row 3.*0 to 47"),
            ({"prompts": [[-1]], "beam_width": 2}, "token ids -1"),
            ({"prompts": [[1]], "beam_width": 0}, "at least one beam"),
            ({"prompts": [[1]], "beam_width": 2, "filters": [None, None]}, "2 filters for 1 prompts"),
            (
                {"prompts": [[1]], "beam_width": 2, "filters": [LiveMask.of(np.ones(59, np.bool_))]},
                "over 59 .* 60 leaves|a filter over 59 ads, the index has 60",
            ),
        ],
    )
    def test_a_request_outside_the_contract_is_refused(
        self,
        kind: str,
        request_: dict[str, Any],
        message: str,
        make_engine: MakeEngine,
        make_index: Callable[..., AdIndex],
    ) -> None:
        with pytest.raises(InvalidInput, match=message):
            make_engine(kind, make_index()).generate(**request_)

    def test_the_longest_prompt_is_taken(
        self, kind: str, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        assert len(make_engine(kind, make_index()).generate([[1] * 45], beam_width=3)[0]) == 3


@pytest.mark.parametrize("kind", MODEL_KINDS)
class TestEveryEngineWithAModel:
    @pytest.mark.parametrize("score", SCORES)
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_it_equals_algorithm_2_as_printed(
        self,
        kind: Any,
        score: Score,
        data: st.DataObject,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
        make_prompts: Callable[..., Any],
    ) -> None:
        seed = data.draw(st.integers(0, 10**6))
        index = make_index(data.draw(st.integers(1, 120)), seed=seed)
        width = data.draw(st.integers(1, 12))
        prompts = make_prompts(data.draw(st.integers(1, 3)), seed=seed)
        model = make_model(data.draw(st.sampled_from(["qwen2", "qwen3", "llama", "hunyuan"])), seed=seed)

        answers = engine_of(model, index=index, vocabulary=vocabulary, score=score, kind=kind).generate(
            prompts, beam_width=width
        )

        for prompt, beams in zip(prompts, answers, strict=True):
            expected = reference(model, vocabulary, index, prompt, score=score, width=width)
            assert [beam.sid.codes for beam in beams] == [codes for codes, _ in expected]
            assert [beam.log_probability for beam in beams] == pytest.approx(
                [math.log(probability) for _, probability in expected], abs=1e-4
            )

    def test_probabilities_of_all_ads_of_a_full_trie_sum_to_one(
        self, kind: Any, make_engine: MakeEngine, make_index: Callable[..., AdIndex]
    ) -> None:
        answer = make_engine(kind, make_index(7 * 5 * 6 * 4)).generate([[5, 6]], beam_width=2000)

        assert len(answer[0]) == 840
        assert sum(math.exp(score) for score in log_probabilities(answer)) == pytest.approx(1, abs=1e-4)

    def test_nan_weights_are_an_error_and_no_answer(
        self,
        kind: Any,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        model = make_model(seed=1)
        with torch.no_grad():
            model.get_output_embeddings().weight.fill_(torch.nan)
        engine = engine_of(model, index=make_index(), vocabulary=vocabulary, score="level", kind=kind)

        with pytest.raises(BrokenModel, match="NaN"):
            engine.generate([[1]], beam_width=2)

    def test_a_model_without_the_vocabularys_tokens_is_refused(
        self, kind: Any, make_model: Callable[..., PreTrainedModel], make_index: Callable[..., AdIndex]
    ) -> None:
        large = Vocabulary(text_size=100, code_counts=(7, 5, 6, 4))
        with pytest.raises(ReleaseMismatch, match="53 token embeddings, the vocabulary 125 tokens"):
            engine_of(make_model(), index=make_index(), vocabulary=large, score="raw", kind=kind)

    def test_a_vocabulary_without_a_code_of_the_index_is_refused(
        self, kind: Any, make_model: Callable[..., PreTrainedModel], make_index: Callable[..., AdIndex]
    ) -> None:
        small = Vocabulary(text_size=20, code_counts=(7, 5, 6, 3))
        with pytest.raises(ReleaseMismatch, match=r"\(7, 5, 6, 3\) codes a level"):
            engine_of(make_model(), index=make_index(), vocabulary=small, score="raw", kind=kind)
