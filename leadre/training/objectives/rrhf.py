"""Business alignment by RRHF: rank responses by their likelihood as their eCPM ranks them.

LEADRE §5.2.3, Figure 4b, compares DPO with it. H. Yuan, Z. Yuan et al., "RRHF: Rank Responses to Align Language Models
with Human Feedback", NeurIPS 2023, arXiv:2304.05302: there is no reference model, so nothing holds the model where it
was but the likelihood of the best response.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference

from leadre.precision import training_type
from leadre.recipe import DpoRecipe, SftRecipe
from leadre.training.data.examples import IGNORED
from leadre.training.data.preferences import PreferenceExample
from leadre.training.objectives.dpo import PairBuckets, pair_dataset, steps_of, trainer_settings
from leadre.training.objectives.head import attach_head, detach_head
from leadre.training.run.progress import CurvePoint, Curves, Progress
from leadre.training.run.reporting import Reporting


def rrhf_loss(
    log_probs: torch.Tensor, lengths: torch.Tensor, rewards: torch.Tensor, *, sft_weight: float
) -> torch.Tensor:
    """Return sum over r_i < r_j of max(0, p_i - p_j), less `sft_weight` times the best response's log-probability.

    p is the log-probability by length. The mean over prompts.

    Args:
        log_probs: float[n, k], of k responses to each of n prompts, summed over their tokens.
        lengths: int[n, k], of the responses in tokens.
        rewards: float[n, k], of the responses; equal ones are not ranked.
        sft_weight: the RRHF paper's is 1.
    """
    by_length = log_probs / lengths
    worse = rewards[:, :, None] < rewards[:, None, :]
    ranking = ((by_length[:, :, None] - by_length[:, None, :]).clamp(min=0) * worse).sum(dim=(1, 2))
    best = log_probs.gather(1, rewards.argmax(dim=1, keepdim=True)).squeeze(1)
    return (ranking - sft_weight * best).mean()


def run_rrhf(
    model: PreTrainedModel,
    pairs: Sequence[PreferenceExample],
    *,
    recipe: DpoRecipe,
    sft: SftRecipe,
    tokenizer: PreTrainedTokenizerBase,
    code_blocks: Sequence[tuple[int, int]],
    work: Path,
    reporting: Reporting | None = None,
    progress: Progress | None = None,
) -> list[CurvePoint]:
    """Align `model` in place on DPO's pairs: two responses a prompt, of which the chosen one earns more.

    Args:
        model: the fine-tuned model.
        pairs: prompts with a chosen and a rejected response, as token ids; at least one.
        recipe: of this phase; `beta` and `sft_weight` are DPO's alone.
        sft: gives precision, and whether probabilities are over the level's codes.
        tokenizer: Hugging Face's view of the vocabulary; gives the padding token.
        code_blocks: (first token id, count) of each level's codes.
        work: folder for the trainer's files.
        reporting: who else is told the curve.
        progress: called after each step.

    Returns:
        The training curve; its accuracy is the share of pairs whose chosen response is the likelier one.
    """
    curves = Curves(stage="rrhf", progress=progress)
    trainer = _RankTrainer(
        model=model,
        args=TrainingArguments(
            **trainer_settings(recipe, steps=steps_of(recipe, pairs=len(pairs)), work=work),
            **(reporting.settings("rrhf") if reporting else {"report_to": "none"}),
            remove_unused_columns=False,  # the collator reads them, not the model
        ),
        train_dataset=pair_dataset(pairs),
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id),
        callbacks=[curves, *(reporting.callbacks("rrhf") if reporting else [])],
    )
    trainer.sft_weight = recipe.rrhf_sft_weight
    trainer.remove_callback(PrinterCallback)
    attach_head(model, blocks=code_blocks if sft.level_loss else (), multiply_in=training_type(sft.precision))
    try:
        trainer.train()
    finally:
        detach_head(model)
    return curves.points


class _RankTrainer(PairBuckets, Trainer):  # type: ignore[misc]
    """The trainer with RRHF's loss; it counts tokens and well-ranked pairs as TRL's does."""

    sft_weight = 1.0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._tokens = 0
        self._ranked: list[torch.Tensor] = []

    def compute_loss(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
        supervised = inputs["completion_mask"].bool()
        labels = inputs["input_ids"].masked_fill(~supervised, IGNORED)
        log_probs = model(input_ids=inputs["input_ids"], labels=labels, fused_lm_head=True).log_probs.sum(dim=1)
        pairs, lengths = (torch.stack(values.chunk(2), dim=1) for values in (log_probs, supervised.sum(dim=1)))
        by_length = (pairs / lengths).detach()
        self._ranked.append((by_length[:, 0] > by_length[:, 1]).float())
        self._tokens += int(inputs["attention_mask"].sum())
        rewards = torch.tensor([[1.0, 0.0]], device=pairs.device).expand(len(pairs), 2)
        return rrhf_loss(pairs, lengths, rewards, sft_weight=self.sft_weight)

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if self._ranked:
            logs["rewards/accuracies"] = float(torch.cat(self._ranked).mean())
            logs["num_tokens"] = self._tokens
            self._ranked.clear()
        super().log(logs, *rest)
