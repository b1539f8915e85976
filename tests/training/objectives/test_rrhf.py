"""RRHF ranks responses by their likelihood as their rewards rank them, on DPO's pairs."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DpoRecipe, Recipe
from leadre.training.data.preferences import PreferenceExample
from leadre.training.learner.tokenizer import model_tokenizer
from leadre.training.objectives.rrhf import rrhf_loss, run_rrhf


def test_the_arithmetic_of_three_responses() -> None:
    # Probabilities .25, .5 and .125 of 2, 2 and 3 tokens: p = log .5, log(.5) / 2, log .5.
    log_probs, lengths = torch.tensor([[log(0.25), log(0.5), log(0.125)]]), torch.tensor([[2, 2, 3]])
    # The rewards say third > first > second, and the second is the likeliest: it exceeds both others by .347.
    rewards = torch.tensor([[2.0, 1.0, 3.0]])
    ranking = 2 * (log(0.5) / 2 - log(0.5))
    assert rrhf_loss(log_probs, lengths, rewards, sft_weight=0.0).item() == pytest.approx(ranking)
    assert rrhf_loss(log_probs, lengths, rewards, sft_weight=1.0).item() == pytest.approx(ranking - log(0.125))


responses = st.tuples(st.floats(-9, 0, width=32), st.integers(1, 6), st.integers(0, 3))


@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(responses, min_size=k, max_size=k), min_size=1)))
def test_the_loss_equals_the_sum_over_pairs(prompts: list[list[tuple[float, int, int]]]) -> None:
    log_probs, lengths, rewards = (torch.tensor([[row[at] for row in rows] for rows in prompts]) for at in range(3))
    expected = 0.0
    for rows in prompts:
        for p_i, length_i, r_i in rows:
            expected += sum(max(0.0, p_i / length_i - p_j / length_j) for p_j, length_j, r_j in rows if r_i < r_j)
        expected -= 0.3 * max(rows, key=lambda row: row[2])[0]
    found = rrhf_loss(log_probs, lengths, rewards.float(), sft_weight=0.3).item()
    assert found == pytest.approx(expected / len(prompts), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("sft_weight", "level_loss"), [(0.0, True), (1.0, False)])
def test_the_chosen_response_becomes_the_likelier_one(
    sft_weight: float,
    level_loss: bool,
    log_probability: Callable[..., float],
    model: PreTrainedModel,
    recipe: Recipe,
    vocabulary: Vocabulary,
    text_tokenizer: Tokenizer,
    code_blocks: list[tuple[int, int]],
    tmp_path: Path,
) -> None:
    first, second, last = vocabulary.level_offsets
    blocks = code_blocks if level_loss else []
    better, worse = (first, second + 1, last), (first + 1, second, last + 1)
    if log_probability(model, tuple(range(3, 9)), better, blocks) > log_probability(
        model, tuple(range(3, 9)), worse, blocks
    ):
        better, worse = worse, better  # so that there is something to learn
    pairs = [
        PreferenceExample(prompt=tuple(range(3, 3 + length)), chosen=better, rejected=worse) for length in range(4, 16)
    ]

    def scores() -> list[float]:
        return [log_probability(model, pairs[2].prompt, response, blocks) for response in (better, worse)]

    before = scores()
    steps = []
    points = run_rrhf(
        model,
        pairs,
        recipe=DpoRecipe(
            method="rrhf", learning_rate=3e-3, batch_size=5, epochs=4.0, rrhf_sft_weight=sft_weight, max_pairs=12
        ),
        sft=msgspec.structs.replace(recipe.sft, level_loss=level_loss),
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        code_blocks=code_blocks,
        work=tmp_path,
        progress=lambda what, done, total: steps.append((what, done, total)),
    )
    after = scores()
    assert before[0] < before[1]
    assert after[0] > after[1]
    if sft_weight:
        assert after[0] > before[0] + 0.5
    assert points[-1].loss < points[0].loss
    assert points[-1].accuracy == 1.0
    assert points[-1].tokens_per_s > 0
    assert steps[-1] == ("train: rrhf", 12, 12)
    assert "forward" not in vars(model)
