"""LEADRE §4.3.2: the DPO loss, by hand.

The paper prints -log sigmoid(beta * pi(chosen)/pi_ref(chosen) - beta * pi(rejected)/pi_ref(rejected)), without the
logarithm of the ratios. The text names DPO, whose loss has it: -log sigmoid(beta * (log-ratio of chosen - that of
rejected)). Ours is the named one. As printed the loss is DPO's with another divergence from the reference than
Kullback-Leibler's, chi-square. Both take the same first step. Then the printed one pulls a chosen ad up the harder the
higher it is already, and hardly pushes a rejected one down once it has fallen: a ratio cannot go below 0, a log-ratio
can.
"""

from __future__ import annotations

from math import exp, log, log1p
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed
from trl import DPOConfig

from leadre.training.objectives.dpo import PairTrainer
from leadre.training.objectives.head import attach_head

# TRL 1.16 asks transformers 5.23 by a name that it has deprecated (2026-11)
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BETA = 0.3
PROMPT, CHOSEN, REJECTED = [3, 4, 5], [6, 9], [7, 8]


def test_the_arithmetic_of_a_pair() -> None:
    # The policy gives the chosen ad probability 0.3 (reference 0.2) and the rejected one 0.1 (reference 0.2):
    # the log-ratios are log 1.5 and log 0.5, they differ by log 3, and the loss is -log sigmoid(0.3 * log 3).
    margin = log(0.3 / 0.2) - log(0.1 / 0.2)
    assert margin == pytest.approx(log(3))
    assert log1p(exp(-BETA * margin)) == pytest.approx(log(1 + 3**-BETA)) == pytest.approx(0.5418, abs=1e-4)
    # As printed: the ratios are 1.5 and 0.5, they differ by 1, and the loss is -log sigmoid(0.3).
    assert log1p(exp(-BETA * (1.5 - 0.5))) == pytest.approx(0.5544, abs=1e-4)


def pulls(chosen: float, rejected: float, *, printed: bool) -> tuple[float, float]:
    """Return how strongly a step of gradient descent moves the two log-probabilities, from their log-ratios."""
    at = torch.tensor([chosen, rejected], requires_grad=True)
    scores = at.exp() if printed else at
    (-torch.nn.functional.logsigmoid(BETA * (scores[0] - scores[1]))).backward()
    assert at.grad is not None
    return float(-at.grad[0]), float(-at.grad[1])


def test_the_printed_loss_starts_alike_then_runs_up_and_no_longer_down() -> None:
    start = pytest.approx((BETA / 2, -BETA / 2))
    assert pulls(0.0, 0.0, printed=True) == start
    assert pulls(0.0, 0.0, printed=False) == start
    up, down = pulls(1.0, -4.0, printed=False)
    assert up == pytest.approx(-down)  # always: what one gains the other loses
    printed_up, printed_down = pulls(1.0, -4.0, printed=True)
    assert printed_up > 3 * up
    assert 0 < -printed_down < 0.05 * -down
    assert printed_up / -printed_down == pytest.approx(exp(1.0 + 4.0), rel=1e-4)


def sequence_log_probability(model: PreTrainedModel, response: list[int]) -> float:
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([PROMPT + response])).logits[0].log_softmax(-1)
    return sum(float(scores[len(PROMPT) - 1 + at, token]) for at, token in enumerate(response))


def test_the_trainer_computes_the_loss_with_the_logarithm_and_could_compute_the_printed_one(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=12,
        initializer_range=0.5,
    )
    set_seed(0)
    policy, reference = Qwen2ForCausalLM(config).eval(), Qwen2ForCausalLM(config).eval()
    chosen = sequence_log_probability(policy, CHOSEN) - sequence_log_probability(reference, CHOSEN)
    rejected = sequence_log_probability(policy, REJECTED) - sequence_log_probability(reference, REJECTED)
    by_hand = log1p(exp(-BETA * (chosen - rejected)))

    backend = Tokenizer(models.WordLevel({str(at): at for at in range(11)}, unk_token="0"))

    def loss(**settings: Any) -> float:
        trainer = PairTrainer(
            model=policy,
            ref_model=reference,
            args=DPOConfig(
                output_dir=str(tmp_path),
                beta=BETA,
                bf16=False,
                use_cpu=True,
                report_to="none",
                activation_checkpointing=False,
                gradient_checkpointing=None,
                max_length=None,
                dataloader_pin_memory=False,
                **settings,
            ),
            train_dataset=Dataset.from_dict(
                {"prompt_ids": [PROMPT], "chosen_ids": [CHOSEN], "rejected_ids": [REJECTED]}
            ),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="0", eos_token="1"),
        )
        attach_head(policy)
        attach_head(reference)
        with torch.no_grad():
            return float(trainer.compute_loss(policy, trainer.data_collator([trainer.train_dataset[0]])))

    assert loss() == pytest.approx(by_hand, rel=1e-5)
    printed = log1p(exp(-BETA * (exp(chosen) - exp(rejected))))
    assert abs(printed - by_hand) > 0.01
    chi_square = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 2.0}
    assert loss(**chi_square) == pytest.approx(printed, rel=1e-5)
