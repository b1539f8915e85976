"""The device engine, run step by step on the CPU, gives the beam engine's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from leadre.decoding.device.engine import DeviceEngine
from leadre.decoding.engine import Score
from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.domain.retrieval import Beam
from leadre.errors import BrokenModel
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary

SCORES: list[Score] = ["raw", "level", "valid"]


def ads(answers: list[list[Beam]]) -> list[list[tuple[tuple[int, ...], int]]]:
    return [[(beam.sid.codes, beam.ad_id) for beam in beams] for beams in answers]


def log_probabilities(answers: list[list[Beam]]) -> list[float]:
    return [beam.log_probability for beams in answers for beam in beams]


class TestDeviceEngine:
    @pytest.mark.parametrize("score", SCORES)
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_it_answers_as_the_beam_engine_under_any_filters(
        self,
        score: Score,
        data: st.DataObject,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
        make_prompts: Callable[..., Any],
    ) -> None:
        seed = data.draw(st.integers(0, 10**6))
        random = np.random.default_rng(seed)
        size = data.draw(st.sampled_from([1, 3, 40, 300, 840]))
        index = make_index(size, seed=seed)
        users = data.draw(st.integers(1, 5))
        width = data.draw(st.integers(1, 14))
        prompts = make_prompts(users, seed=seed)
        masks = [LiveMask.of(random.random(size) < share) for share in random.choice([0, 0.05, 0.4, 1], 2)]
        filters = [data.draw(st.sampled_from([None, *masks])) for _ in range(users)]
        model = make_model(data.draw(st.sampled_from(["qwen2", "qwen3", "llama", "hunyuan"])), seed=seed)
        engine = DeviceEngine(
            model,
            index=index,
            vocabulary=vocabulary,
            score=score,
            users_per_pass=data.draw(st.sampled_from([1, 3, 8])),
            prefill_tokens=data.draw(st.sampled_from([64, 200])),
        )
        decoder = SharedPrefixDecoder(model, vocabulary=vocabulary, score=score)

        answers = engine.generate(prompts, beam_width=width, filters=filters)

        expected = BeamSearchEngine(decoder, index=index).generate(prompts, beam_width=width, filters=filters)
        assert ads(answers) == ads(expected)
        assert log_probabilities(answers) == pytest.approx(log_probabilities(expected), abs=1e-4)

    def test_equal_scores_come_in_the_beam_engines_order(
        self,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        model = make_model(seed=3)
        with torch.no_grad():
            model.get_output_embeddings().weight.zero_()  # every code is as likely as any other
        index = make_index(300, seed=3)
        decoder = SharedPrefixDecoder(model, vocabulary=vocabulary, score="level")
        engine = DeviceEngine(model, index=index, vocabulary=vocabulary, score="level")

        answers = engine.generate([[1, 2, 3], [4]], beam_width=9)

        expected = BeamSearchEngine(decoder, index=index).generate([[1, 2, 3], [4]], beam_width=9)
        assert ads(answers) == ads(expected)

    def test_a_pass_is_made_once_a_shape_and_few_are_kept(
        self,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        engine = DeviceEngine(make_model(), index=make_index(), vocabulary=vocabulary, score="level")

        for beams in range(1, 21):
            engine.generate([[1, 2], [3]], beam_width=beams)
            engine.generate([[1, 2, 3], [3]], beam_width=beams)

        assert [shape.beams for shape in engine._passes] == list(range(5, 21))

    def test_a_filter_that_is_on_the_device_is_not_sent_again(
        self,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        engine = DeviceEngine(
            make_model(), index=make_index(90), vocabulary=vocabulary, score="level", users_per_pass=2
        )
        masks = [LiveMask.of(np.arange(90) % 3 == rest) for rest in range(3)]

        assert engine._masks.place([masks[0], None]) == [0, -1]
        assert engine._masks.place([masks[1], masks[0]]) == [1, 0]
        sent = engine._masks.words.clone()
        assert engine._masks.place([masks[0], masks[1]]) == [0, 1]
        assert torch.equal(engine._masks.words, sent)
        assert sorted(engine._masks.place([masks[2], masks[1]])) == [0, 1]

    def test_nan_in_one_layer_is_an_error(
        self,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        model = make_model()
        with torch.no_grad():
            model.get_decoder().layers[1].mlp.down_proj.weight[0, 0] = torch.nan
        engine = DeviceEngine(model, index=make_index(), vocabulary=vocabulary, score="level")

        with pytest.raises(BrokenModel, match="NaN"):
            engine.generate([[1, 2]], beam_width=3)
