"""The TensorRT-LLM engine against a small simulation of TensorRT-LLM's beam search; the real one needs a GPU."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from leadre.decoding.engine import Engine, Score
from leadre.decoding.load import engine_of
from leadre.decoding.tensorrt import engine as tensorrt
from leadre.decoding.tensorrt.engine import TensorRtEngine
from leadre.decoding.tensorrt.processor import TrieProcessor, steer
from leadre.errors import BrokenModel, ConfigError, InvalidInput, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.indexing.trie.torch_trie import TorchTrie
from leadre.prompts.vocabulary import Vocabulary

WIDTH = 16  # beams the simulated engine runs with
LONGEST = 20
Logits = Callable[[list[int]], Tensor]


def beam_step(logits: Tensor, sums: Tensor, *, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """One step as TensorRT-LLM 1.4 does it: log-softmax, add the slots' sums, keep the best 2K, then the first K."""
    totals = torch.log_softmax(logits, dim=-1) + sums[:, None]
    best, tokens = torch.topk(totals, min(2 * width, totals.shape[1]), dim=1)  # of each slot
    kept = torch.topk(best.flatten(), min(2 * width, best.numel())).indices[:width]
    return kept // best.shape[1], tokens.flatten()[kept], best.flatten()[kept]


class SimulatedLlm:
    """TensorRT-LLM's PyTorch backend as far as a logits processor sees it.

    Each slot's token ids are what the slot emitted: they do not follow beams that change slots.
    """

    def __init__(self, logits_after: Logits, *, reorder: bool = False, forget: bool = False) -> None:
        self.logits_after, self.reorder, self.forget = logits_after, reorder, forget
        self.requests = 0

    def generate(self, inputs: Sequence[list[int]], sampling_params: Sequence[Any], *, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.requests += len(inputs)
        return [self._one(prompt, params) for prompt, params in zip(inputs, sampling_params, strict=True)]

    def _one(self, prompt: list[int], params: dict[str, Any]) -> Any:
        width, processor = params["best_of"], copy.deepcopy(params["logits_processor"])
        paths: list[list[int]] = [[]]
        slots: list[list[int]] = [[]]
        sums = torch.zeros(1)
        for _ in range(params["max_tokens"]):
            logits = torch.stack([self.logits_after(prompt + path) for path in paths])
            processor(7, logits.view(len(paths), 1, -1), [prompt + slot for slot in slots], None, None)
            parents, tokens, sums = beam_step(logits, sums, width=width)
            if self.reorder:
                parents, tokens = parents.flip(0), tokens.flip(0)
            pairs = list(zip(parents.tolist(), tokens.tolist(), strict=True))
            paths = [paths[parent] + [token] for parent, token in pairs]
            slots = [(slots[slot] if slot < len(slots) else slots[0]) + [pairs[slot][1]] for slot in range(width)]
        if self.forget:
            paths = slots
        ends = torch.argsort(sums, descending=True).tolist()
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=paths[end]) for end in ends[: params["n"]]])


def logits_of(model: PreTrainedModel) -> Logits:
    @torch.inference_mode()
    def after(tokens: list[int]) -> Tensor:
        return model(input_ids=torch.tensor([tokens])).logits[0, -1].float().clone()

    return after


@pytest.fixture
def make_engine(vocabulary: Vocabulary) -> Callable[..., TensorRtEngine]:
    def make(llm: SimulatedLlm, index: AdIndex, *, score: Score = "level") -> TensorRtEngine:
        return TensorRtEngine(
            llm,
            lambda arguments: arguments,
            index=index,
            vocabulary=vocabulary,
            score=score,
            beam_width=WIDTH,
            longest_prompt=LONGEST,
            device="cpu",
        )

    return make


def assert_same(answer: Engine, expected: Engine, prompts: list[list[int]], **request: Any) -> None:
    for ours, theirs in zip(answer.generate(prompts, **request), expected.generate(prompts, **request), strict=True):
        assert [beam.ad_id for beam in ours] == [beam.ad_id for beam in theirs]
        assert [beam.sid for beam in ours] == [beam.sid for beam in theirs]
        assert np.allclose([b.log_probability for b in ours], [b.log_probability for b in theirs], atol=1e-4)


class TestTheEngine:
    @pytest.mark.parametrize("score", ["raw", "level"])
    @pytest.mark.parametrize("beam_width", [1, 5, WIDTH])
    def test_its_beams_order_and_scores_are_those_of_the_transformers_engine(
        self, make_engine: Any, make_index: Any, make_model: Any, make_prompts: Any, vocabulary: Vocabulary,
        score: Score, beam_width: int,
    ) -> None:  # fmt: skip
        model, index = make_model(seed=3), make_index(131, seed=2)
        ours = make_engine(SimulatedLlm(logits_of(model)), index, score=score)
        theirs = engine_of(model, index=index, vocabulary=vocabulary, score=score, kind="hf")
        assert_same(ours, theirs, make_prompts(3, seed=beam_width), beam_width=beam_width)

    def test_each_prompt_has_its_own_filter(
        self, make_engine: Any, make_index: Any, make_model: Any, make_prompts: Any, vocabulary: Vocabulary
    ) -> None:
        model, index = make_model(seed=1), make_index(97, seed=5)
        ours = make_engine(SimulatedLlm(logits_of(model)), index)
        theirs = engine_of(model, index=index, vocabulary=vocabulary, score="level", kind="hf")
        leaf = np.arange(97)
        few = LiveMask.of(np.isin(leaf, (3, 50, 96)))
        filters = [None, few, LiveMask.of(leaf % 4 == 1), few]
        assert_same(ours, theirs, make_prompts(4), beam_width=11, filters=filters)

    def test_fewer_live_ads_than_beams_give_as_many_beams_and_none_gives_none(
        self, make_engine: Any, make_index: Any, make_model: Any, make_prompts: Any
    ) -> None:
        llm = SimulatedLlm(logits_of(make_model()))
        leaf = np.arange(60)
        filters = [LiveMask.of(leaf == 41), LiveMask.of(leaf < 0)]
        found = make_engine(llm, make_index(60)).generate(make_prompts(2), beam_width=9, filters=filters)
        assert [len(beams) for beams in found] == [1, 0]
        assert llm.requests == 1  # what nothing can answer is never decoded

    def test_an_empty_index_answers_without_the_model(
        self, make_engine: Any, make_index: Any, make_prompts: Any
    ) -> None:
        llm = SimulatedLlm(lambda _: torch.zeros(0))
        empty = make_index(codes=np.zeros((0, 4), np.int32))
        assert make_engine(llm, empty).generate(make_prompts(2), beam_width=3) == [[], []]

    def test_over_another_revision_generates_its_ads_with_the_same_model(
        self, make_engine: Any, make_index: Any, make_model: Any, make_prompts: Any, vocabulary: Vocabulary
    ) -> None:
        model = make_model()
        ours = make_engine(SimulatedLlm(logits_of(model)), make_index(30)).over(make_index(83, seed=9))
        theirs = engine_of(model, index=make_index(83, seed=9), vocabulary=vocabulary, score="level", kind="hf")
        assert_same(ours, theirs, make_prompts(2), beam_width=8)
        other = make_index(30)
        object.__setattr__(other, "version", "other")
        with pytest.raises(ReleaseMismatch, match="index other"):
            ours.over(other)

    def test_more_beams_than_it_was_made_for_are_refused(
        self, make_engine: Any, make_index: Any, make_prompts: Any
    ) -> None:
        engine = make_engine(SimulatedLlm(lambda _: torch.zeros(0)), make_index())
        with pytest.raises(InvalidInput, match=f"at most {WIDTH}"):
            engine.generate(make_prompts(1), beam_width=WIDTH + 1)
        with pytest.raises(InvalidInput, match="takes 20"):
            engine.generate([[1] * (LONGEST + 1)], beam_width=2)

    def test_a_vocabulary_too_small_for_the_beams_is_refused(self, make_index: Any, vocabulary: Vocabulary) -> None:
        with pytest.raises(ConfigError, match="at most 16"):
            TensorRtEngine(
                SimulatedLlm(lambda _: torch.zeros(0)), dict, index=make_index(), vocabulary=vocabulary,
                score="raw", beam_width=17, longest_prompt=LONGEST, device="cpu",
            )  # fmt: skip

    def test_nan_logits_are_a_broken_model(
        self, make_engine: Any, make_index: Any, make_prompts: Any, vocabulary: Vocabulary
    ) -> None:
        engine = make_engine(SimulatedLlm(lambda _: torch.full((vocabulary.size,), torch.nan)), make_index())
        with pytest.raises(BrokenModel, match="NaN"):
            engine.generate(make_prompts(1), beam_width=2)

    @pytest.mark.parametrize("fault", ["reorder", "forget"])
    def test_a_beam_search_that_behaves_otherwise_is_an_error_and_not_a_wrong_answer(
        self, make_engine: Any, make_index: Any, make_model: Any, make_prompts: Any, fault: str
    ) -> None:
        llm = SimulatedLlm(logits_of(make_model()), **{fault: True})
        with pytest.raises(ConfigError, match=r"chosen for it|than it was given"):
            make_engine(llm, make_index(90)).generate(make_prompts(1), beam_width=7)


class TestLoading:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        (tmp_path / "config.json").write_text("{}")
        return tmp_path

    def test_a_machine_without_a_gpu_is_refused_before_anything_is_imported(
        self, checkpoint: Path, make_index: Any, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="CUDA device"):
            TensorRtEngine.load(
                checkpoint, index=make_index(), vocabulary=vocabulary, score="raw", beam_width=4, users=2,
                longest_prompt=LONGEST,
            )  # fmt: skip

    def test_the_llm_is_made_once_with_the_arguments_and_shared_by_all_revisions(
        self, checkpoint: Path, make_index: Any, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[dict[str, Any]] = []
        package = SimpleNamespace(
            LLM=lambda **given: made.append(given),
            SamplingParams=dict,
            llmapi=SimpleNamespace(KvCacheConfig=lambda **given: ("cache", given)),
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(tensorrt, "import_tensorrt_llm", lambda: package)
        monkeypatch.setattr(tensorrt, "TorchTrie", lambda trie, *, device: (trie, device))
        engine = TensorRtEngine.load(
            checkpoint, index=make_index(), vocabulary=vocabulary, score="raw", beam_width=4, users=2,
            longest_prompt=LONGEST,
        )  # fmt: skip
        engine.over(make_index(31))
        (given,) = made
        assert (given["model"], given["max_beam_width"], given["max_batch_size"]) == (str(checkpoint), 4, 2)
        assert given["max_seq_len"] == LONGEST + vocabulary.levels
        assert given["kv_cache_config"][0] == "cache"


class TestTheProcessor:
    @pytest.fixture
    def processor(self, make_index: Any, vocabulary: Vocabulary) -> TrieProcessor:
        return TrieProcessor(
            TorchTrie(make_index(60).trie, device="cpu"), live=None, vocabulary=vocabulary, score="level",
            beam_width=5, width=6, prompt_tokens=3, device="cpu",
        )  # fmt: skip

    def test_it_does_not_raise_while_the_model_runs_but_afterwards(
        self, processor: TrieProcessor, vocabulary: Vocabulary
    ) -> None:
        logits = torch.zeros(1, 1, vocabulary.size, dtype=torch.bfloat16)
        processor(0, logits, [[1, 2, 3]], None, None)
        with pytest.raises(ConfigError, match="bfloat16"):
            processor.result()

    def test_token_ids_that_lag_behind_are_noticed(self, processor: TrieProcessor, vocabulary: Vocabulary) -> None:
        processor(0, torch.zeros(1, 1, vocabulary.size), [[1, 2, 3]], None, None)
        processor(0, torch.zeros(6, 1, vocabulary.size), [[1, 2, 3]] * 6, None, None)
        with pytest.raises(ConfigError, match="overlap scheduler"):
            processor.result()

    def test_a_request_that_ended_early_has_no_result(self, processor: TrieProcessor) -> None:
        with pytest.raises(ConfigError, match="0 of 4 codes"):
            processor.result()

    def test_it_is_never_sent_to_another_process_and_a_copy_is_itself(self, processor: TrieProcessor) -> None:
        with pytest.raises(ConfigError, match="TLLM_WORKER_USE_SINGLE_PROCESS"):
            pickle.dumps(processor)
        assert copy.deepcopy(processor) is processor


class TestSteering:
    @given(data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_exactly_the_chosen_beams_come_out_in_their_order_at_every_step(self, data: st.DataObject) -> None:
        width = data.draw(st.integers(2, 24), label="width")
        vocabulary = data.draw(st.integers(3 * width, 5 * width), label="vocabulary")
        random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
        sums, live = torch.zeros(1), 1
        for _ in range(5):
            beams = int(random.integers(1, min(width, live * vocabulary) + 1))
            chosen = random.choice(live * vocabulary, beams, replace=False)
            parents, tokens = torch.from_numpy(chosen // vocabulary), torch.from_numpy(chosen % vocabulary)
            logits = torch.from_numpy(random.normal(size=(len(sums), vocabulary)) * 20).float()
            steer(logits, parents, tokens, width=width)
            assert torch.allclose(logits.double().exp().sum(1), torch.ones(1, dtype=torch.float64), atol=1e-5)
            came_from, came, sums = beam_step(logits, sums, width=width)
            assert came_from[:beams].tolist() == parents.tolist()
            assert came[:beams].tolist() == tokens.tolist()
            live = beams

    def test_the_order_survives_the_rounding_of_a_real_vocabulary(self) -> None:
        random = np.random.default_rng(0)
        width, vocabulary = 128, 151_936
        sums = torch.zeros(1)
        for _ in range(5):
            chosen = random.choice(len(sums) * 1024, width, replace=False)
            parents, tokens = torch.from_numpy(chosen // 1024), torch.from_numpy(chosen % 1024 + vocabulary - 1024)
            logits = torch.zeros(len(sums), vocabulary)
            steer(logits, parents, tokens, width=width)
            came_from, came, sums = beam_step(logits, sums, width=width)
            assert came_from.tolist() == parents.tolist()
            assert came.tolist() == tokens.tolist()
