from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.experiments.generated_texts.engine import TextEngine
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary

ADS = 37
MakePrompts = Callable[..., list[list[int]]]


@pytest.fixture(scope="module")
def index(make_index: Callable[..., AdIndex]) -> AdIndex:
    return make_index(ADS, seed=3)


@pytest.fixture(scope="module")
def texts(vocabulary: Vocabulary) -> list[tuple[int, ...]]:
    """Few tokens, so that texts share beginnings; the last two ads have the first two's texts."""
    random = np.random.default_rng(5)
    distinct: dict[tuple[int, ...], None] = {}
    while len(distinct) < ADS - 2:
        distinct[*random.integers(0, 4, random.integers(1, 6)).tolist(), vocabulary.eos_id] = None
    return [*distinct, *list(distinct)[:2]]


def log_probability(model: PreTrainedModel, prompt: list[int], text: tuple[int, ...]) -> float:
    ids = torch.tensor([[*prompt, *text]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0].float().log_softmax(dim=-1)
    return float(sum(logits[len(prompt) - 1 + at, token] for at, token in enumerate(text)))


def beam_search(
    model: PreTrainedModel, prompt: list[int], texts: set[tuple[int, ...]], *, width: int
) -> list[tuple[int, ...]]:
    """Plain beam search: prefixes of texts, one token at a time, ended texts staying where they are."""
    beams: list[tuple[int, ...]] = [()]
    while not all(beam in texts for beam in beams):
        grown = {beam for beam in beams if beam in texts}
        for beam in set(beams) - grown:
            grown |= {text[: len(beam) + 1] for text in texts if text[: len(beam)] == beam}
        beams = sorted(grown, key=lambda beam: -log_probability(model, prompt, beam))[:width]
    return beams


def gpt2(vocabulary: Vocabulary) -> PreTrainedModel:
    """An architecture that only the plain decoder computes."""
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=vocabulary.size, n_positions=40, n_embd=24, n_layer=2, n_head=3, initializer_range=0.4
    )
    model: PreTrainedModel = GPT2LMHeadModel(config).eval()
    return model


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
def test_a_wide_beam_finds_every_ad_with_its_texts_probability(
    architecture: str,
    index: AdIndex,
    texts: list[tuple[int, ...]],
    vocabulary: Vocabulary,
    make_model: Callable[..., PreTrainedModel],
    make_prompts: MakePrompts,
) -> None:
    model = gpt2(vocabulary) if architecture == "gpt2" else make_model(architecture)
    engine = TextEngine(model, texts=texts, index=index, precedence=np.arange(ADS), vocabulary_size=vocabulary.size)
    prompts = make_prompts(3, seed=2)
    for prompt, beams in zip(prompts, engine.generate(prompts, beam_width=ADS), strict=True):
        expected = {int(ad): log_probability(model, prompt, text) for ad, text in zip(index.ad_ids, texts, strict=True)}
        assert {beam.ad_id: beam.log_probability for beam in beams} == pytest.approx(expected, abs=1e-4)
        scores = [beam.log_probability for beam in beams]
        assert scores == sorted(scores, reverse=True)
        assert all(index.sid(beam.ad_id) == beam.sid for beam in beams)


def test_a_narrow_beam_is_plain_beam_search(
    index: AdIndex,
    texts: list[tuple[int, ...]],
    vocabulary: Vocabulary,
    make_model: Callable[..., PreTrainedModel],
    make_prompts: MakePrompts,
) -> None:
    model = make_model("qwen2", seed=4)
    engine = TextEngine(model, texts=texts, index=index, precedence=np.arange(ADS), vocabulary_size=vocabulary.size)
    prompts = make_prompts(5, seed=6)
    text_of = dict(zip(index.ad_ids.tolist(), texts, strict=True))
    for width in (1, 2, 5):
        for prompt, beams in zip(prompts, engine.generate(prompts, beam_width=width), strict=True):
            wanted = beam_search(model, prompt, set(texts), width=width)
            assert [*dict.fromkeys(text_of[beam.ad_id] for beam in beams)] == wanted[: len(beams)]
            assert len(beams) == width


def test_of_ads_with_one_text_the_preferred_one_comes_first(
    index: AdIndex,
    texts: list[tuple[int, ...]],
    vocabulary: Vocabulary,
    make_model: Callable[..., PreTrainedModel],
    make_prompts: MakePrompts,
) -> None:
    last_first = -np.arange(ADS)
    engine = TextEngine(make_model(), texts=texts, index=index, precedence=last_first, vocabulary_size=vocabulary.size)
    (beams,) = engine.generate(make_prompts(1), beam_width=ADS)
    order = [beam.ad_id for beam in beams]
    for ad in (0, 1):
        assert order.index(int(index.ad_ids[ADS - 2 + ad])) + 1 == order.index(int(index.ad_ids[ad]))


def test_requests_that_texts_cannot_serve_are_refused(
    index: AdIndex,
    texts: list[tuple[int, ...]],
    vocabulary: Vocabulary,
    make_model: Callable[..., PreTrainedModel],
    make_index: Callable[..., AdIndex],
) -> None:
    model = make_model()
    engine = TextEngine(model, texts=texts, index=index, precedence=np.arange(ADS), vocabulary_size=vocabulary.size)
    assert engine.generate([], beam_width=2) == []
    with pytest.raises(InvalidInput, match="without filters"):
        engine.generate([[1]], beam_width=2, filters=[index.live_mask(index.ad_ids[:3])])
    with pytest.raises(InvalidInput, match="the model takes"):
        engine.generate([[1] * 48], beam_width=2)
    with pytest.raises(InvalidInput, match="one an ad"):
        TextEngine(model, texts=texts[1:], index=index, precedence=np.arange(ADS), vocabulary_size=vocabulary.size)
    assert engine.over(index) is engine
    with pytest.raises(ReleaseMismatch, match="its own ads"):
        engine.over(make_index(ADS + 4, seed=3))
    with pytest.raises(ReleaseMismatch):
        engine.over(replace(index, version="other"))
