"""Business alignment moves probability from the rejected response to the chosen one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from leadre.errors import ConfigError
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DpoRecipe, Recipe
from leadre.training.data.preferences import PreferenceExample
from leadre.training.learner.tokenizer import model_tokenizer
from leadre.training.objectives.dpo import run_dpo, trainer_settings


@pytest.mark.parametrize(("sft_weight", "level_loss"), [(0.0, True), (0.7, False)])
def test_the_chosen_response_gains_on_the_rejected_one(
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
    pairs = [
        PreferenceExample(
            prompt=tuple(range(3, 3 + length)), chosen=(first, second + 1, last), rejected=(first + 1, second, last + 1)
        )
        for length in range(4, 16)
    ]
    blocks = code_blocks if level_loss else []

    def margin() -> float:
        pair = pairs[0]
        return log_probability(model, pair.prompt, pair.chosen, blocks) - log_probability(
            model, pair.prompt, pair.rejected, blocks
        )

    before = margin()
    points = run_dpo(
        model,
        pairs,
        recipe=DpoRecipe(learning_rate=3e-3, batch_size=5, epochs=4.0, sft_weight=sft_weight),
        sft=msgspec.structs.replace(recipe.sft, level_loss=level_loss),
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        code_blocks=code_blocks,
        work=tmp_path,
    )
    assert margin() > before + 0.5
    assert points[-1].loss < points[0].loss
    assert points[-1].accuracy == 1.0
    assert "forward" not in vars(model)


def test_a_batch_that_cannot_be_shared_out_among_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"dpo\.batch_size=32 cannot be shared out among 3 processes"):
        trainer_settings(DpoRecipe(batch_size=32), steps=1, work=tmp_path)
    assert trainer_settings(DpoRecipe(batch_size=33), steps=1, work=tmp_path)["per_device_train_batch_size"] == 11
