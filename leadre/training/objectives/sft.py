"""Supervised fine-tuning of one stage through TRL.

LEADRE §4.3.1, §5.1.3: AdamW or Muon, cosine to a minimum rate, loss on the response only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from leadre.errors import ConfigError
from leadre.precision import training_type
from leadre.recipe import SftRecipe
from leadre.training.data.examples import NO_TARGETS, Example, to_dataset
from leadre.training.objectives.head import attach_head, detach_head
from leadre.training.run.average import Average
from leadre.training.run.checkpoint import (
    finish,
    newest_checkpoint,
    read_finished,
    read_progress,
    read_weights,
    write_progress,
)
from leadre.training.run.optimizer import MuonWithAdamW
from leadre.training.run.processes import is_main, process_count, process_number, wait_for_all
from leadre.training.run.progress import CurvePoint, Curves, Progress
from leadre.training.run.reporting import Reporting
from leadre.training.run.validation import Validation, Validator
from leadre.training.teacher.lesson import Lesson
from leadre.training.teacher.rows import TeacherRows

_POOL_BATCHES = 256  # so many batches are sorted by length together: hardly any padding, still shuffled


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the curriculum: a name for people, its examples, and how often to go through them."""

    name: str
    examples: Sequence[Example]
    epochs: float


def run_stage(
    model: PreTrainedModel,
    stage: Stage,
    *,
    recipe: SftRecipe,
    tokenizer: PreTrainedTokenizerBase,
    code_blocks: Sequence[tuple[int, int]],
    work: Path,
    teacher: TeacherRows | None = None,
    validation: Validation | None = None,
    reporting: Reporting | None = None,
    progress: Progress | None = None,
) -> list[CurvePoint]:
    """Train `model` in place on one stage; what is trained are its parameters that require a gradient.

    Args:
        model: a causal LM; under `accelerate launch` every process gives the same one and ends with the same weights.
        stage: what to train on.
        recipe: rates and sizes.
        tokenizer: Hugging Face's view of the vocabulary; gives the padding token.
        code_blocks: (first token id, count) of each level's codes, for `recipe.level_loss`.
        work: folder for the trainer's files. With `recipe.checkpoint_steps` it should outlive a kill and be the
            stage's alone: training goes on from the newest checkpoint there, or takes the finished stage's weights,
            and ends with the weights of a training that was never killed. That what is there is of the same stage and
            recipe is the caller's to see to.
        teacher: of the examples' targets, where the recipe wants one.
        validation: measured after every pass; the model ends with the best pass's weights.
        reporting: who else is told the curve.
        progress: called after each step.

    Returns:
        The training curve, of the whole stage.

    Raises:
        ArtifactIncomplete: the finished stage is damaged.
        ConfigError: the batch size cannot be shared out among the processes.
    """
    durable = recipe.checkpoint_steps > 0
    if durable and (known := read_finished(work, model)) is not None:
        return known
    steps_a_pass = ceil(len(stage.examples) / recipe.batch_size)
    steps = max(1, round(steps_a_pass * stage.epochs))
    device_batch = device_batch_size(recipe, processes=process_count())
    best = work / f"best-{process_number()}.safetensors"
    curves = Curves(stage=stage.name, progress=progress)
    taught = teacher is not None and any(example.first_target != NO_TARGETS for example in stage.examples)
    average = Average(model, decay=recipe.average) if recipe.average else None
    trainer = _StageTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(work),
            max_steps=steps,
            per_device_train_batch_size=device_batch,
            gradient_accumulation_steps=recipe.batch_size // (device_batch * process_count()),
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr": min(recipe.minimum_learning_rate, recipe.learning_rate)},
            warmup_steps=round(recipe.warmup_fraction * steps),
            weight_decay=recipe.weight_decay,
            optim="adamw_torch_fused",
            bf16=False,  # attach_head multiplies in bfloat16
            use_cpu=not torch.cuda.is_available(),
            activation_checkpointing=False,
            gradient_checkpointing=None,
            ddp_find_unused_parameters=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            dataset_kwargs={"skip_prepare_dataset": True},
            logging_steps=max(1, steps // 50),
            save_strategy="steps" if durable else "no",
            save_steps=max(1, recipe.checkpoint_steps),
            save_total_limit=1,
            **(reporting.settings(stage.name) if reporting else {"report_to": "none"}),
            disable_tqdm=True,
            seed=recipe.seed,
        ),
        train_dataset=to_dataset(stage.examples, targets="number" if taught else "leave_out"),
        processing_class=tokenizer,
        data_collator=_TargetCollator(pad_token_id=tokenizer.pad_token_id) if taught else None,
        curves=curves,
        average=average,
        muon=recipe.optimizer == "muon",
    )
    trainer.remove_callback(PrinterCallback)
    for told in reporting.callbacks(stage.name) if reporting else []:
        trainer.add_callback(told)
    if average is not None:
        trainer.add_callback(average)
    if validation is not None:
        trainer.add_callback(
            Validator(validation, curves=curves, model=model, best=best, steps_a_pass=steps_a_pass, average=average)
        )
    attach_head(
        model,
        blocks=code_blocks if recipe.level_loss else (),
        multiply_in=training_type(recipe.precision),
        lesson=Lesson.of(teacher, recipe, blocks=code_blocks) if taught and teacher is not None else None,
    )
    try:
        trainer.train(resume_from_checkpoint=newest_checkpoint(work) if durable else None)
    finally:
        detach_head(model)
    if validation is not None:
        read_weights(best, model)
    elif average is not None:
        average.give()
    if durable:
        wait_for_all()
        if is_main():
            finish(work, model, curve=curves.points)
        wait_for_all()
    return curves.points


def device_batch_size(recipe: SftRecipe, *, processes: int) -> int:
    """Return the samples that each process takes at once, so that an optimizer step has the recipe's all the same.

    Raises:
        ConfigError: `batch_size` cannot be shared out evenly.
    """
    share, left = divmod(recipe.batch_size, processes)
    size = min(share, recipe.device_batch_size)
    if left or not size or share % size:
        raise ConfigError(
            f"sft.batch_size={recipe.batch_size} cannot be shared out among {processes} processes in batches of "
            f"sft.device_batch_size={recipe.device_batch_size}; make it a multiple of their product"
        )
    return size


class LengthBuckets(Sampler[int]):
    """Orders samples so that those of a batch are about equally long and batches come in random order."""

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides the order together with the seed."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator)
        batches: list[torch.Tensor] = []
        for start in range(0, len(order), _POOL_BATCHES * self._batch_size):
            pool = order[start : start + _POOL_BATCHES * self._batch_size]
            pool = pool[self._lengths[pool].argsort(stable=True)]
            batches += [pool[at : at + self._batch_size] for at in range(0, len(pool), self._batch_size)]
        short = [batch for batch in batches if len(batch) < self._batch_size]  # at most one: it must come last
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        for place in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[place].tolist()
        for batch in short:
            yield from batch.tolist()


class _TargetCollator(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """TRL's collator, and the number of each sample's first target."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["first_target"] = torch.tensor([int(example["first_target"]) for example in examples])
        return batch


class _StageTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with batches of equal length, and checkpoints of what is trained and of the curve."""

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        args: SFTConfig,
        train_dataset: Dataset,
        processing_class: PreTrainedTokenizerBase,
        data_collator: _TargetCollator | None,
        curves: Curves,
        average: Average | None,
        muon: bool,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            processing_class=processing_class,
            callbacks=[curves],
        )
        self._curves, self._average, self._muon = curves, average, muon

    _signature_columns: list[str] | None
    optimizer: torch.optim.Optimizer | None

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns = [*(self._signature_columns or ()), "first_target"]

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self._muon and self.optimizer is None:
            trained = self.model if model is None else model
            self.optimizer = MuonWithAdamW(
                trained,
                rate=self.args.learning_rate,
                decay=self.args.weight_decay,
                decayed=self.get_decay_parameter_names(trained),
            )
        made: torch.optim.Optimizer = self.optimizer or super().create_optimizer(model)
        return made

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in dataset["input_ids"]]
        # The batches that the processes take at the same time are cut from one bucket: none waits for a longer one.
        together = self.args.per_device_train_batch_size * self.args.world_size
        return LengthBuckets(lengths, batch_size=together, seed=self.args.seed)

    def _save(self, output_dir: str | None = None, **_: Any) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            write_progress(folder, self.model, curve=self._curves.points)
            if self._average is not None:
                self._average.write(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *_: Any) -> None:
        self._curves.points[:] = read_progress(Path(resume_from_checkpoint), self.model)
        if self._average is not None:
            self._average.read(Path(resume_from_checkpoint))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: a checkpoint is not for publication."""
