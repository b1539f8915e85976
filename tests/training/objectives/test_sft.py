"""One stage of fine-tuning: order of samples, learning, repeatability."""

from __future__ import annotations

from math import log
from pathlib import Path

import msgspec
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import Recipe
from leadre.training.data.examples import TrainingData
from leadre.training.data.tasks import explicit
from leadre.training.learner.tokenizer import model_tokenizer
from leadre.training.objectives.sft import LengthBuckets, Stage, run_stage
from leadre.training.run.progress import CurvePoint


@given(st.lists(st.integers(1, 40), max_size=90), st.integers(1, 7), st.integers(0, 3))
def test_buckets_hold_every_sample_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    buckets = LengthBuckets(lengths, batch_size=batch_size, seed=2)
    buckets.set_epoch(epoch)
    order = list(buckets)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(buckets)


def test_batches_are_of_like_length_and_in_random_order() -> None:
    lengths = [at * 37 % 50 for at in range(400)]
    buckets = LengthBuckets(lengths, batch_size=8, seed=0)
    first = list(buckets)
    buckets.set_epoch(1)
    assert first != list(buckets)
    batches = [[lengths[at] for at in first[start : start + 8]] for start in range(0, 400, 8)]
    assert max(max(batch) - min(batch) for batch in batches) <= 6
    assert [batch[0] for batch in batches] != sorted(batch[0] for batch in batches)


def fine_tune(
    model: PreTrainedModel,
    data: TrainingData,
    encoder: PromptEncoder,
    *,
    recipe: Recipe,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    work: Path,
    level_loss: bool,
) -> tuple[list[CurvePoint], list[int]]:
    steps: list[int] = []
    points = run_stage(
        model,
        Stage(name="explicit", examples=explicit.examples(data, encoder), epochs=4.0),
        recipe=msgspec.structs.replace(recipe.sft, level_loss=level_loss),
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        code_blocks=list(zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True)),
        work=work,
        progress=lambda _, done, __: steps.append(done),
    )
    return points, steps


def test_training_lowers_the_loss_the_same_way_every_time(
    model: PreTrainedModel,
    data: TrainingData,
    encoder: PromptEncoder,
    recipe: Recipe,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    tmp_path: Path,
) -> None:
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    runs = []
    for _ in range(2):
        model.load_state_dict(initial)
        points, steps = fine_tune(
            model,
            data,
            encoder,
            recipe=recipe,
            text_tokenizer=text_tokenizer,
            vocabulary=vocabulary,
            work=tmp_path,
            level_loss=True,
        )
        runs.append([point.loss for point in points])
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.9 * runs[0][0]
    assert (steps[0], steps[-1], points[-1].step) == (0, 24, 24)  # 96 ads in batches of 16, 4 epochs
    assert points[-1].tokens_per_s > 0
    assert "forward" not in vars(model)


def test_the_vocabulary_loss_is_trained_too(
    model: PreTrainedModel,
    data: TrainingData,
    encoder: PromptEncoder,
    recipe: Recipe,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    tmp_path: Path,
) -> None:
    points, _ = fine_tune(
        model,
        data,
        encoder,
        recipe=recipe,
        text_tokenizer=text_tokenizer,
        vocabulary=vocabulary,
        work=tmp_path,
        level_loss=False,
    )
    assert points[0].loss > log(vocabulary.size) - 0.5 > points[-1].loss


def test_every_stage_multiplies_in_the_recipes_precision(
    model: PreTrainedModel,
    data: TrainingData,
    encoder: PromptEncoder,
    recipe: Recipe,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    tmp_path: Path,
) -> None:
    seen: list[torch.dtype] = []
    projection = model.get_decoder().layers[0].mlp.up_proj
    projection.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    for precision in ("bf16", "bf16", "fp32"):  # accelerate's own mixed precision ends with the first trainer
        run_stage(
            model,
            Stage(name="explicit", examples=explicit.examples(data, encoder)[:8], epochs=1.0),
            recipe=msgspec.structs.replace(recipe.sft, precision=precision),
            tokenizer=model_tokenizer(text_tokenizer, vocabulary),
            code_blocks=list(zip(vocabulary.level_offsets, vocabulary.code_counts, strict=True)),
            work=tmp_path,
        )
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
