"""Steps are those of the search that makes the list: same ads, same scores, whatever is scored, filtered or fused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from transformers import PreTrainedModel

from leadre.decoding.diversity import with_variety
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.fusion import Fusion
from leadre.decoding.load import engine_of
from leadre.decoding.steps import stepwise
from leadre.decoding.stub import StubEngine
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import LiveMask
from leadre.prompts.vocabulary import Vocabulary
from tests.decoding.signals import signal_of

PROMPTS = ([1, 2, 3], [4] * 12)


@pytest.fixture
def index(make_index: Callable[..., AdIndex]) -> AdIndex:
    return make_index(ads=90)


def masks_of(index: AdIndex) -> list[LiveMask | None]:
    random = np.random.default_rng(1)
    return [None, LiveMask.of(random.random(len(index)) < 0.3), LiveMask.of(np.arange(len(index)) == 7)]


def check(engine: Engine, index: AdIndex, *, same_order: bool = True) -> None:
    for prompt in PROMPTS:
        for mask in masks_of(index):
            for width in (1, 5, 200):
                (beams,) = engine.generate([prompt], beam_width=width, filters=[mask])
                steps = stepwise(engine).steps(prompt, beam_width=width, mask=mask)
                assert len(steps) == index.trie.levels
                last = steps[-1]
                ads = index.ad_ids[last.node[last.kept]].tolist()
                if same_order:
                    assert ads == [beam.ad_id for beam in beams]
                    scores = [beam.log_probability for beam in beams]
                    assert last.rank[last.kept].tolist() == pytest.approx(scores, abs=1e-5)
                else:
                    assert set(ads) == {beam.ad_id for beam in beams}


@pytest.mark.parametrize("kind", ["hf", "shared_prefix"])
@pytest.mark.parametrize("score", ["raw", "level", "valid"])
def test_the_last_step_is_the_list(
    score: Score, kind: str, index: AdIndex, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary
) -> None:
    check(engine_of(make_model(), index=index, vocabulary=vocabulary, score=score, kind=kind), index)  # type: ignore[arg-type]


def test_of_a_fused_beam_too_and_a_varied_list_has_the_same_ads(
    index: AdIndex, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary
) -> None:
    fusion = Fusion(signal_of(index.ad_ids), weight=0.4, index=index, vocabulary=vocabulary)
    engine = engine_of(make_model(), index=index, vocabulary=vocabulary, score="level", fusion=fusion)
    check(engine, index)
    check(with_variety(engine, index=index, share=0.3), index, same_order=False)


@pytest.mark.parametrize("score", ["raw", "level", "valid"])
def test_the_way_to_an_ad_has_its_probability_in_the_whole_list(
    score: Score, index: AdIndex, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary
) -> None:
    engine = engine_of(make_model(), index=index, vocabulary=vocabulary, score=score)
    for mask in masks_of(index):
        (beams,) = engine.generate([PROMPTS[0]], beam_width=len(index), filters=[mask])
        for beam in beams[::7]:
            leaf = int(index.rows(np.array([beam.ad_id]))[0])
            steps = stepwise(engine).steps(PROMPTS[0], beam_width=3, mask=mask, towards=leaf)
            assert [len(step.kept) for step in steps] == [1] * index.trie.levels
            last = steps[-1]
            assert int(last.node[last.kept[0]]) == leaf
            assert float(last.score[last.kept[0]]) == pytest.approx(beam.log_probability, abs=1e-4)


def test_no_ad_no_step_and_an_engine_without_steps_says_so(
    index: AdIndex, make_model: Callable[..., PreTrainedModel], vocabulary: Vocabulary
) -> None:
    engine = stepwise(engine_of(make_model(), index=index, vocabulary=vocabulary, score="level"))
    assert engine.steps([1], beam_width=3, mask=LiveMask.of(np.zeros(len(index), np.bool_))) == []
    with pytest.raises(ConfigError, match="StubEngine does not tell"):
        stepwise(StubEngine(index, vocabulary_size=99))
