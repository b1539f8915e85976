"""A release: what goes in comes out, and it is whole or absent."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from leadre.errors import ArtifactIncomplete
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import Recipe
from leadre.training.data.examples import TrainingData
from leadre.training.learner.release_folder import (
    load_prompt_encoder,
    load_recipe_of,
    load_vocabulary,
    open_release,
    seen_of,
    write_release,
)
from leadre.training.learner.tokenizer import model_tokenizer
from leadre.training.run.progress import CurvePoint


@pytest.fixture
def release(
    tmp_path: Path, model: PreTrainedModel, text_tokenizer: Tokenizer, vocabulary: Vocabulary, recipe: Recipe
) -> Path:
    point = CurvePoint(stage="main", step=3, loss=1.5, learning_rate=0.1, seconds=2.0, tokens_per_s=7.0, accuracy=0.25)
    write_release(
        tmp_path / "r1",
        model=model,
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        text_tokenizer=text_tokenizer,
        vocabulary=vocabulary,
        recipe=recipe,
        metrics={"hr@8": 0.5},
        curves=[point],
        index_version="v1",
    )
    return tmp_path / "r1"


def test_a_release_says_what_becomes_of_own_ads_and_one_that_does_not_keeps_them(release: Path) -> None:
    assert seen_of(release) == "keep"
    manifest = json.loads((release / "manifest.json").read_text())
    for said, seen in (({"seen": "leave_out"}, "leave_out"), ({}, "keep")):
        facts = {name: value for name, value in manifest["facts"].items() if name != "seen"}
        (release / "manifest.json").write_text(json.dumps({**manifest, "facts": facts | said}))
        assert seen_of(release) == seen


def test_what_was_written_is_read(
    release: Path,
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    recipe: Recipe,
    data: TrainingData,
    encoder: PromptEncoder,
) -> None:
    manifest = open_release(release)
    assert (manifest.name, manifest.facts["index_version"], manifest.facts["architecture"]) == ("r1", "v1", "qwen2")
    assert load_recipe_of(release) == recipe
    assert load_vocabulary(release) == vocabulary
    assert json.loads((release / "metrics.json").read_text()) == {"hr@8": 0.5}
    assert json.loads((release / "curves.json").read_text())[0]["stage"] == "main"
    again = AutoModelForCausalLM.from_pretrained(release / "model", use_safetensors=True)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    user = next(user for user, positions in enumerate(data.targets) if positions)
    prompt = data.prompt(user, data.targets[user][-1])
    assert load_prompt_encoder(release).encode(prompt) == encoder.encode(prompt)


def test_what_a_base_asks_of_generation_does_not_get_into_a_release(
    release: Path,
    tmp_path: Path,
    model: PreTrainedModel,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    recipe: Recipe,
) -> None:
    model = copy.deepcopy(model)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_k=20, repetition_penalty=1.05)
    write_release(
        tmp_path / "r2",
        model=model,
        tokenizer=model_tokenizer(text_tokenizer, vocabulary),
        text_tokenizer=text_tokenizer,
        vocabulary=vocabulary,
        recipe=recipe,
        metrics={},
        curves=[],
        index_version="v1",
    )
    written = json.loads((tmp_path / "r2" / "model" / "generation_config.json").read_text())
    assert written == json.loads((release / "model" / "generation_config.json").read_text())
    assert (written["do_sample"], written["eos_token_id"]) == (False, vocabulary.eos_id)
    assert not {"temperature", "top_k", "repetition_penalty"} & set(written)


def test_other_tools_find_the_code_tokens(release: Path, vocabulary: Vocabulary) -> None:
    tokenizer = AutoTokenizer.from_pretrained(release / "model")
    assert tokenizer.convert_tokens_to_ids("<b_2>") == vocabulary.level_offsets[1] + 2
    assert tokenizer.pad_token_id == vocabulary.pad_id


def test_weights_are_in_safetensors_and_nothing_is_a_pickle(release: Path) -> None:
    suffixes = {path.suffix for path in release.rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert suffixes <= {".json", ".toml", ".safetensors"}


def test_a_release_without_a_file_is_not_one(release: Path) -> None:
    (release / "text_tokenizer.json").unlink()
    with pytest.raises(ArtifactIncomplete, match="text_tokenizer"):
        load_prompt_encoder(release)
