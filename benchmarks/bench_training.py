"""Training against TRL as it comes: supervised ads (targets) a second, on one model and the same histories.

LEADRE §4.2.2, §4.3, §5.1.3. `python benchmarks/bench_training.py --quick`, `--threads 2`, `--json`. Peers: TRL's
SFTTrainer with its own head, attention, collator, order, mixed precision and batches of 8 on the device, on one prompt
for each target (the paper's format), and on our one-pass samples; the optimizer's batch is the recipe's, and activation
checkpointing is off, which makes TRL faster. Ours is `run_stage`. With one thread CPU seconds are counted, so that
other programs on the machine do not enter; with more, wall time. The floor is what no trainer of this model can avoid,
the multiply-adds of real tokens forward and backward and of the levels' codes at supervised positions, at the rate of
the model's own matrix products, measured in the same run: "of GEMM" is floor over measured.

A fourth row is ours with a teacher (`sft.distil`): its probabilities for all targets of the histories are made once,
from a signal over all `--ads` ads, and each pass reads them. `teacher_share` is what making them takes of the recipe's
passes over the main task; `peak_rss_mb` is the process's, before the peers.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from datasets.utils.logging import disable_progress_bar
from histories import DISAMBIGUATION_CODES, made_up_data, made_up_index, made_up_signal
from toy import timed
from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from leadre.collaborative.cross_fit import CrossFitted
from leadre.precision import training_type
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DistilRecipe, Recipe, load_recipe
from leadre.training.data.examples import Example, corpus, to_dataset
from leadre.training.data.tasks import main as main_task
from leadre.training.learner.model import build_model
from leadre.training.learner.tokenizer import model_tokenizer, text_encoder, train_text_tokenizer
from leadre.training.objectives.sft import LengthBuckets, Stage, run_stage
from leadre.training.teacher.masses import write_teacher
from leadre.training.teacher.positions import positions_of
from leadre.training.teacher.rows import TeacherRows

RECIPE = Path(__file__).parents[1] / "recipes" / "amazon_beauty.toml"
PEER_DEVICE_BATCH = 8  # TRL's default
WEIGHT = 0.8
"""Of the teacher, where the recipe names none."""
ROW = "{:<36} {:>9} {:>10} {:>10} {:>8} {:>9} {:>7}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One way of training, measured: supervised ads, real tokens and optimizer steps, in so many seconds."""

    samples: int
    targets: int
    tokens: int
    steps: int
    padding: float
    seconds: float
    gflop: float

    @property
    def samples_per_s(self) -> float:
        """Return samples a second."""
        return self.samples / self.seconds

    @property
    def targets_per_s(self) -> float:
        """Return supervised ads a second."""
        return self.targets / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Return tokens a second, without padding."""
        return self.tokens / self.seconds

    def row(self, name: str, *, gemm_gflops: float) -> str:
        """Return the line of the table."""
        return ROW.format(
            name,
            f"{self.targets_per_s:.1f}",
            f"{self.tokens_per_s:.0f}",
            f"{self.tokens / self.targets:.1f}",
            f"{self.padding:.1%}",
            f"{1000 * self.seconds / self.steps:.0f}",
            f"{self.gflop / self.seconds / gemm_gflops:.2f}",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train three ways and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="512 users and 2 steps of the peers: under a minute")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="sizes of model, prompts and batches")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--users", type=int, help="histories, each seen once by ours (2048)")
    parser.add_argument("--ads", type=int, default=12_000, help="size of the inventory")
    parser.add_argument("--peer-steps", type=int, help="optimizer steps of each peer, on samples drawn at random (8)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    disable_progress_bar()
    bench = Bench(
        load_recipe(options.recipe, overrides=tuple(options.overrides)),
        users=options.users or (512 if options.quick else 2048),
        ads=options.ads,
        peer_steps=options.peer_steps or (2 if options.quick else 8),
        clock=time.process_time if options.threads == 1 else time.perf_counter,
    )
    rates = bench.gemm_gflops()
    gemm = rates[bench.multiply_in]
    if not options.json:
        what = ", ".join(f"{str(kind).removeprefix('torch.')} {rate:.0f}" for kind, rate in rates.items())
        print(
            f"GEMM GFLOP/s of the model's products: {what}; trained in {bench.multiply_in}, {options.threads} threads"
        )
        print(ROW.format("", "targets/s", "tokens/s", "tok/target", "padding", "ms/step", "of GEMM"))
    measured, peak_mb = {}, 0.0
    for name, measure in (
        ("ours: one pass, level loss, buckets", bench.ours),
        ("ours, with a teacher", bench.taught),
        ("TRL, one prompt a target", bench.trl_one_prompt),
        ("TRL, one pass", bench.trl_one_pass),
    ):
        measured[name] = measure()
        if measure == bench.taught:
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the peers
        if not options.json:
            print(measured[name].row(name, gemm_gflops=gemm), flush=True)
    ours, taught, one_prompt, one_pass = measured.values()
    speedup = ours.targets_per_s / one_prompt.targets_per_s
    share = bench.teacher_s / (bench.teacher_s + bench.passes * taught.seconds)
    if not options.json:
        print(f"ours / TRL: {speedup:.1f}, with the same samples {ours.targets_per_s / one_pass.targets_per_s:.1f}")
        print(
            f"teacher over {options.ads:,} ads: {1000 * bench.teacher_s / taught.targets:.2f} ms a target, {share:.1%} "
            f"of {bench.passes:g} passes; peak {peak_mb:.0f} MB"
        )
        return 0
    report = {
        "ours_targets_per_s": ours.targets_per_s,
        "trl_one_pass_targets_per_s": one_pass.targets_per_s,
        "trl_one_prompt_targets_per_s": one_prompt.targets_per_s,
        "ours_tokens_per_s": ours.tokens_per_s,
        "trl_tokens_per_s": one_prompt.tokens_per_s,
        "trl_one_pass_tokens_per_s": one_pass.tokens_per_s,
        "ours_padding": ours.padding,
        "trl_padding": one_prompt.padding,
        "gemm_gflops": gemm,
        "gemm_fp32_gflops": rates[torch.float32],
        "gemm_bf16_gflops": rates[torch.bfloat16],
        "ours_gemm_fraction": ours.gflop / ours.seconds / gemm,
        "trl_gemm_fraction": one_prompt.gflop / one_prompt.seconds / gemm,
        "speedup": speedup,
        "speedup_same_samples": ours.targets_per_s / one_pass.targets_per_s,
        "samples_per_s": taught.samples_per_s,
        "plain_samples_per_s": ours.samples_per_s,
        "teacher_ms_a_target": 1000 * bench.teacher_s / taught.targets,
        "teacher_share": share,
        "passes": bench.passes,
        "ads": options.ads,
        "peak_rss_mb": peak_mb,
        "threads": options.threads,
    }
    print(json.dumps(report))
    return 0


class Bench:
    """Made-up histories, the recipe's model over them, and the ways to train it."""

    def __init__(
        self, recipe: Recipe, *, users: int, ads: int, peer_steps: int, clock: Callable[[], float], seed: int = 0
    ) -> None:
        self._recipe, self._peer_steps, self._clock = recipe, peer_steps, clock
        self.multiply_in = training_type(recipe.sft.precision)
        data = made_up_data(recipe, users=users, ads=ads, seed=seed)
        text = train_text_tokenizer(corpus(data["one_pass"], users=500), size=recipe.model.text_vocabulary)
        codes = (recipe.index.codes,) * recipe.index.levels + (DISAMBIGUATION_CODES,)
        self._vocabulary = Vocabulary(text_size=text.get_vocab_size(), code_counts=codes)
        self._tokenizer: PreTrainedTokenizerBase = model_tokenizer(text, self._vocabulary)
        self._model = build_model(
            recipe.model,
            vocabulary_size=self._vocabulary.size,
            positions=recipe.prompt.budget_tokens + self._vocabulary.levels,
            pad=self._vocabulary.pad_id,
            eos=self._vocabulary.eos_id,
            seed=seed,
        )
        examples = {
            template: main_task.examples(made, PromptEncoder(self._vocabulary, text_encoder(text), made.recipe))
            for template, made in data.items()
        }
        self._one_pass, self._one_prompt = examples["one_pass"], examples["paper"]
        self._data, self._ads, self._seed = data["one_pass"], ads, seed
        self.teacher_s = 0.0
        self.passes = sum(
            epochs for tasks, epochs in zip(recipe.sft.curriculum, recipe.sft.epochs, strict=True) if "main" in tasks
        )

    def gemm_gflops(self) -> dict[torch.dtype, float]:
        """Measure the products of a layer, forward and backward, at the tokens of a batch: GFLOP/s by type."""
        rows = round(self._recipe.sft.device_batch_size * float(np.mean([len(e.input_ids) for e in self._one_pass])))
        shapes = [
            m.weight.shape for m in self._model.get_decoder().layers[0].modules() if isinstance(m, torch.nn.Linear)
        ]
        rates = {}
        for kind in (torch.float32, torch.bfloat16):
            seconds = 0.0
            for outputs, inputs in shapes:
                x, gradient = torch.randn(rows, inputs).to(kind), torch.randn(rows, outputs).to(kind)
                weight = torch.randn(outputs, inputs).to(kind)
                for product in (
                    lambda x=x, w=weight: x @ w.T,
                    lambda g=gradient, w=weight: g @ w,
                    lambda g=gradient, x=x: g.T @ x,
                ):
                    seconds += timed(product, repeat=7, clock=self._clock)[1]
            rates[kind] = 6e-9 * rows * sum(outputs * inputs for outputs, inputs in shapes) / seconds
        return rates

    def ours(self) -> Rate:
        """Measure `run_stage`: every user once."""
        return self._ours(teacher=None)

    def taught(self) -> Rate:
        """Measure it with a teacher; how long that takes to make is left in `teacher_s`."""
        index = made_up_index(self._recipe, ads=self._ads, seed=self._seed)
        positions = positions_of(self._data, index=index)
        signal = made_up_signal(positions.histories, ads=self._ads, seed=self._seed)
        with tempfile.TemporaryDirectory() as scratch:
            began = self._clock()
            write_teacher(
                Path(scratch) / "teacher",
                positions,
                teacher=CrossFitted(signal=signal),
                index=index,
                temperature=self._recipe.sft.distil.temperature,
            )
            self.teacher_s = self._clock() - began
            del signal  # a training that does not serve it need not keep it
            return self._ours(teacher=TeacherRows.load(Path(scratch) / "teacher"))

    def _ours(self, *, teacher: TeacherRows | None) -> Rate:
        model = copy.deepcopy(self._model)
        batch = self._recipe.sft.device_batch_size
        sft = msgspec.structs.replace(
            self._recipe.sft,
            batch_size=batch,
            checkpoint_steps=0,
            optimizer="adamw",  # the peers'
            objective="next_ad",
            distil=DistilRecipe(weight=(self._recipe.sft.distil.weight or WEIGHT) if teacher is not None else 0.0),
        )
        blocks = list(zip(self._vocabulary.level_offsets, self._vocabulary.code_counts, strict=True))
        ticks: list[float] = []

        def train(examples: list[Example]) -> None:
            with tempfile.TemporaryDirectory() as work:
                run_stage(
                    model,
                    Stage(name="main", examples=examples, epochs=1.0),
                    recipe=sft,
                    tokenizer=self._tokenizer,
                    code_blocks=blocks,
                    work=Path(work),
                    teacher=teacher,
                    progress=lambda *_: ticks.append(self._clock()),
                )

        train(self._one_pass[: 2 * batch])  # the first steps of a process are slow
        ticks.clear()
        train(self._one_pass)
        lengths = [len(example.input_ids) for example in self._one_pass]
        order = LengthBuckets(lengths, batch_size=batch, seed=sft.seed)
        return self._rate([self._one_pass[at] for at in order], ticks, device_batch=batch)

    def trl_one_prompt(self) -> Rate:
        """Measure TRL on one prompt for each target."""
        return self._trl(self._one_prompt)

    def trl_one_pass(self) -> Rate:
        """Measure TRL on our samples."""
        return self._trl(self._one_pass)

    def _trl(self, examples: list[Example]) -> Rate:
        sft = self._recipe.sft
        drawn = np.random.default_rng(1).permutation(len(examples))[: self._peer_steps * sft.batch_size]
        chosen = [examples[at] for at in drawn.tolist()]
        clock = _Clock(self._clock)
        with tempfile.TemporaryDirectory() as work:
            for sample in (chosen[:PEER_DEVICE_BATCH], chosen):  # the first steps of a process are slow
                trainer = SFTTrainer(
                    model=copy.deepcopy(self._model),
                    args=SFTConfig(
                        output_dir=work,
                        num_train_epochs=1,
                        per_device_train_batch_size=PEER_DEVICE_BATCH,
                        gradient_accumulation_steps=sft.batch_size // PEER_DEVICE_BATCH,
                        bf16=self.multiply_in is torch.bfloat16,
                        use_cpu=True,
                        activation_checkpointing=False,
                        gradient_checkpointing=None,
                        dataloader_pin_memory=False,
                        train_sampling_strategy="sequential",  # drawn at random already
                        dataset_kwargs={"skip_prepare_dataset": True},
                        save_strategy="no",
                        report_to="none",
                        disable_tqdm=True,
                    ),
                    train_dataset=to_dataset(sample),
                    processing_class=self._tokenizer,
                    callbacks=[clock],
                )
                trainer.remove_callback(PrinterCallback)
                clock.ticks.clear()
                trainer.train()
        return self._rate(chosen, clock.ticks, device_batch=PEER_DEVICE_BATCH)

    def _rate(self, examples: Sequence[Example], ticks: Sequence[float], *, device_batch: int) -> Rate:
        """Return the rate over all steps; `examples` in the order of the batches."""
        lengths = [len(example.input_ids) for example in examples]
        batches = [lengths[at : at + device_batch] for at in range(0, len(lengths), device_batch)]
        padded = sum(len(batch) * max(batch) for batch in batches)
        supervised = sum(len(example.supervised) for example in examples)
        return Rate(
            samples=len(examples),
            targets=supervised // self._vocabulary.levels,
            tokens=sum(lengths),
            steps=len(ticks) - 1,
            padding=1 - sum(lengths) / padded,
            seconds=ticks[-1] - ticks[0],
            gflop=6e-9 * self._multiply_adds(np.array(lengths), supervised // self._vocabulary.levels),
        )

    def _multiply_adds(self, lengths: np.ndarray[Any, Any], targets: int) -> float:
        """Count a forward pass: the layers of every token, causal attention, the codes of each level."""
        decoder = self._model.get_decoder()
        weights = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear))
        width, layers = decoder.config.hidden_size, decoder.config.num_hidden_layers
        attention = layers * width * float((lengths * (lengths + 1)).sum())  # scores and values, half a square each
        heads = targets * width * sum(self._vocabulary.code_counts)
        return float(weights * lengths.sum()) + attention + heads


class _Clock(TrainerCallback):
    """Notes the time when training begins and after each step."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.ticks: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ticks.append(self._clock())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ticks.append(self._clock())


if __name__ == "__main__":
    sys.exit(main())
