"""Business alignment by direct preference optimisation through TRL.

LEADRE §4.3.2. The loss is the standard one, -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)); the
paper prints the ratios without the logarithm (docs/paper_map.md).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainingArguments
from trl import DPOConfig, DPOTrainer

from leadre.errors import ConfigError
from leadre.precision import training_type
from leadre.recipe import DpoRecipe, SftRecipe
from leadre.training.data.preferences import PreferenceExample
from leadre.training.objectives.head import attach_head, detach_head
from leadre.training.objectives.sft import LengthBuckets
from leadre.training.run.processes import process_count
from leadre.training.run.progress import CurvePoint, Curves, Progress
from leadre.training.run.reporting import Reporting


def run_dpo(
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
    """Align `model` in place; the reference is the model as it comes in.

    Args:
        model: the fine-tuned model.
        pairs: prompts with a chosen and a rejected response, as token ids; at least one.
        recipe: of this phase.
        sft: gives precision, and whether probabilities are over the level's codes.
        tokenizer: Hugging Face's view of the vocabulary; gives the padding token.
        code_blocks: (first token id, count) of each level's codes.
        work: folder for the trainer's files.
        reporting: who else is told the curve.
        progress: called after each step.

    Returns:
        The training curve; its accuracy is the share of pairs whose chosen response gained more.
    """
    steps = steps_of(recipe, pairs=len(pairs))
    curves = Curves(stage="dpo", progress=progress)
    reference = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    trainer = PairTrainer(
        model=model,
        ref_model=reference,
        args=DPOConfig(
            **trainer_settings(recipe, steps=steps, work=work),
            **(reporting.settings("dpo") if reporting else {"report_to": "none"}),
            beta=recipe.beta,
            loss_type=["sigmoid", "sft"] if recipe.sft_weight else ["sigmoid"],
            loss_weights=[1.0, recipe.sft_weight] if recipe.sft_weight else None,
            max_length=None,
            activation_checkpointing=False,
        ),
        train_dataset=pair_dataset(pairs),
        processing_class=tokenizer,
        callbacks=[curves, *(reporting.callbacks("dpo") if reporting else [])],
    )
    trainer.remove_callback(PrinterCallback)
    blocks = code_blocks if sft.level_loss else ()
    for each in (model, reference):
        attach_head(each, blocks=blocks, multiply_in=training_type(sft.precision))
    try:
        with warnings.catch_warnings():
            # TRL 1.16 asks transformers 5.23 by a name that it has deprecated (2026-11)
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            trainer.train()
    finally:
        detach_head(model)
    return curves.points


class PairBuckets:
    """For a trainer of pairs: those of a batch are about equally long, so that there is hardly any padding."""

    train_dataset: Dataset
    args: TrainingArguments

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in dataset["prompt_ids"]]  # responses are S-IDs, all of one length
        together = self.args.per_device_train_batch_size * self.args.world_size
        return LengthBuckets(lengths, batch_size=together, seed=self.args.seed)


class PairTrainer(PairBuckets, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on token ids: prompts hold untrusted text, which its own tokenisation must not read."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def steps_of(recipe: DpoRecipe, *, pairs: int) -> int:
    """Return the optimizer steps that the recipe's epochs take; at least one."""
    return max(1, round(ceil(pairs / recipe.batch_size) * recipe.epochs))


def trainer_settings(recipe: DpoRecipe, *, steps: int, work: Path) -> dict[str, Any]:
    """Return the trainer's settings that every way of alignment shares, so that a comparison is one of losses.

    Raises:
        ConfigError: the batch size cannot be shared out among the processes.
    """
    share, left = divmod(recipe.batch_size, process_count())
    if left:
        raise ConfigError(
            f"dpo.batch_size={recipe.batch_size} cannot be shared out among {process_count()} processes; make it a "
            "multiple of their number"
        )
    return {
        "output_dir": str(work),
        "max_steps": steps,
        "per_device_train_batch_size": share,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(0.1 * steps),
        "weight_decay": 0.0,
        "bf16": False,  # attach_head multiplies in bfloat16
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": None,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_steps": max(1, steps // 50),
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": recipe.seed,
    }


def pair_dataset(pairs: Sequence[PreferenceExample]) -> Dataset:
    """Return the pairs as TRL's collator reads them: batches of all chosen responses, then all rejected ones."""
    return Dataset.from_dict(
        {
            "prompt_ids": [list(pair.prompt) for pair in pairs],
            "chosen_ids": [list(pair.chosen) for pair in pairs],
            "rejected_ids": [list(pair.rejected) for pair in pairs],
        }
    )
