from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from leadre.decoding.exact.hf import HfDecoder
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.decoding.load import engine_of
from leadre.decoding.network import layers as network
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary

MakeModel = Callable[..., PreTrainedModel]
MakePrompts = Callable[..., list[list[int]]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_reads_and_steps_as_transformers_does(
    data: st.DataObject, make_model: MakeModel, make_prompts: MakePrompts, vocabulary: Vocabulary
) -> None:
    seed = data.draw(st.integers(0, 10**6))
    random = np.random.default_rng(seed)
    model = make_model(
        data.draw(st.sampled_from(["qwen2", "qwen3", "llama", "hunyuan"])),
        seed=seed,
        key_heads=data.draw(st.sampled_from([1, 2, 4])),
    )
    prompts = make_prompts(data.draw(st.integers(1, 5)), seed=seed)
    ours = SharedPrefixDecoder(
        model, vocabulary=vocabulary, score="raw", prefill_tokens=data.draw(st.integers(1, 60))
    ).read(prompts)
    theirs = HfDecoder(model, vocabulary=vocabulary, score="raw").read(prompts)

    assert ours.first() == pytest.approx(theirs.first(), abs=1e-4)
    rows = len(prompts)
    for level in range(1, vocabulary.levels):
        parents = random.integers(0, rows, random.integers(1, 9))
        codes = random.integers(0, vocabulary.code_counts[level - 1], len(parents))
        rows = len(parents)  # in any order, some prompts perhaps without any
        assert ours.next(level, parents, codes) == pytest.approx(theirs.next(level, parents, codes), abs=1e-4)


def test_two_levels_in_one_pass_equal_two_passes(
    make_model: MakeModel, make_prompts: MakePrompts, vocabulary: Vocabulary
) -> None:
    decoder = SharedPrefixDecoder(make_model("qwen3"), vocabulary=vocabulary, score="level")
    prompts, random = make_prompts(3), np.random.default_rng(3)
    first = random.integers(0, 3, 8), random.integers(0, 7, 8)
    beams = random.integers(0, 8, 6), random.integers(0, 5, 6)
    children = random.integers(0, 6, 9), random.integers(0, 6, 9)
    at_once, stepwise = decoder.read(prompts), decoder.read(prompts)

    at_once.next(1, *first)
    stepwise.next(1, *first)
    both = at_once.next_two(2, *beams, *children)

    assert both[0] == pytest.approx(stepwise.next(2, *beams), abs=1e-5)
    assert both[1] == pytest.approx(stepwise.next(3, *children), abs=1e-5)


def test_the_prompts_cache_does_not_grow_with_the_beams(
    make_model: MakeModel, make_prompts: MakePrompts, vocabulary: Vocabulary
) -> None:
    reading = SharedPrefixDecoder(make_model(), vocabulary=vocabulary, score="level").read(make_prompts(3))
    before = [keys.data_ptr() for keys, _ in reading._prefix]
    rows = np.sort(np.random.default_rng(0).integers(0, 3, 200))

    reading.next(1, rows, np.zeros(200, np.int64))

    assert [keys.data_ptr() for keys, _ in reading._prefix] == before
    assert all(keys.shape[0] == 3 for keys, _ in reading._prefix)


def test_bf16_agrees_with_fp32_within_its_precision(
    make_model: MakeModel, make_prompts: MakePrompts, vocabulary: Vocabulary
) -> None:
    prompts = make_prompts(4, longest=12)
    exact = SharedPrefixDecoder(make_model(), vocabulary=vocabulary, score="level").read(prompts)
    rough = SharedPrefixDecoder(make_model().bfloat16(), vocabulary=vocabulary, score="level").read(prompts)
    rows, codes = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)

    assert np.exp(rough.first()) == pytest.approx(np.exp(exact.first()), abs=0.1)
    assert np.exp(rough.next(1, rows, codes)) == pytest.approx(np.exp(exact.next(1, rows, codes)), abs=0.1)


def test_other_architectures_take_hf_and_are_refused_by_name(
    make_index: Callable[..., AdIndex], vocabulary: Vocabulary
) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary.size,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=30,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    index = make_index()

    engine = engine_of(model, index=index, vocabulary=vocabulary, score="level")

    assert len(engine.generate([[1, 2, 3], [4]], beam_width=6)[1]) == 6
    with pytest.raises(ConfigError, match=r"'gpt2'.*use kind 'hf'"):
        engine_of(model, index=index, vocabulary=vocabulary, score="level", kind="shared_prefix")


def test_sliding_windows_and_length_dependent_positions_take_hf(make_model: MakeModel) -> None:
    model = make_model()
    assert network.supports(model)
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention"]
    assert not network.supports(model)
    model = make_model("llama")
    model.model.rotary_emb.rope_type = "dynamic"
    assert not network.supports(model)


def test_hunyuans_fixed_stretch_of_its_positions_is_computed(
    make_model: MakeModel, make_prompts: MakePrompts, vocabulary: Vocabulary
) -> None:
    plain = make_model("hunyuan")
    stretched = type(plain)(
        type(plain.config)(
            **{
                **plain.config.to_dict(),
                "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "rope_theta": 1e4, "factor": 1.0},
            }
        )
    ).eval()
    prompts = make_prompts(2, seed=8)

    assert network.supports(stretched)
    ours = SharedPrefixDecoder(stretched, vocabulary=vocabulary, score="raw").read(prompts).first()
    assert ours == pytest.approx(
        HfDecoder(stretched, vocabulary=vocabulary, score="raw").read(prompts).first(), abs=1e-4
    )
