"""The release folder: model, tokenizers, vocabulary, recipe, metrics and curves, written whole or not at all.

LEADRE §4.4: what goes from training to serving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from leadre.artifacts import Manifest, open_artifact, write_artifact
from leadre.collaborative.blend import Collaborative
from leadre.evaluation.baselines import Seen
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import Recipe, encode_recipe, load_recipe
from leadre.training.learner.tokenizer import text_encoder
from leadre.training.run.progress import CurvePoint

KIND = "release"
MODEL, TEXT_TOKENIZER, VOCABULARY = "model", "text_tokenizer.json", "vocabulary.json"
RECIPE, METRICS, CURVES, RANKER = "recipe.toml", "metrics.json", "curves.json", "ranker.json"
UNTIL = "until"
"""In the metrics of a training: it read the behaviors until this instant."""


def write_release(
    folder: Path,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text_tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    curves: Sequence[CurvePoint],
    index_version: str,
    collaborative: tuple[Collaborative, float] | None = None,
    ranker: Mapping[str, Any] | None = None,
    seen: Seen = "keep",
) -> None:
    """Write a release.

    Args:
        folder: its place; its name is the release's name.
        model: saved in safetensors under model/, asking for greedy decoding whatever its base asks for.
        tokenizer: Hugging Face's view of the vocabulary, saved beside the model for other tools.
        text_tokenizer: without special tokens; the only one that reads untrusted text.
        vocabulary: ids of the special tokens and codes.
        recipe: what was trained.
        metrics: JSON values.
        curves: of all stages.
        index_version: the index whose S-IDs the model speaks.
        collaborative: the collaborative signal and its share in the score, where the release has one.
        ranker: the plain form of what makes one list of the LLM's and the signal's, in place of that share.
        seen: what its lists do with a user's own ads.

    Raises:
        FileExistsError: a release of that name is there.
    """

    def write(unfinished: Path) -> None:
        # A base may ask for sampling, penalties or stops; our engines read none of it, other tools would.
        model.generation_config = GenerationConfig(
            pad_token_id=model.config.pad_token_id, eos_token_id=vocabulary.eos_id, do_sample=False
        )
        model.save_pretrained(unfinished / MODEL)
        tokenizer.save_pretrained(unfinished / MODEL)
        text_tokenizer.save(str(unfinished / TEXT_TOKENIZER))
        (unfinished / VOCABULARY).write_text(json.dumps(vocabulary.to_json(), indent=1))
        (unfinished / RECIPE).write_bytes(msgspec.toml.encode(encode_recipe(recipe)))
        (unfinished / METRICS).write_text(json.dumps(metrics, indent=1))
        (unfinished / CURVES).write_text(json.dumps([point.plain() for point in curves], indent=1))

        if collaborative is not None:
            signal, weight = collaborative
            signal.write_into(unfinished, weight=weight)
        if ranker is not None:
            (unfinished / RANKER).write_text(json.dumps(ranker, indent=1))

    facts = {
        "index_version": index_version,
        "architecture": model.config.model_type,
        "parameters": model.num_parameters(),
        "recipe": recipe.name,
        "seen": seen,
    }
    write_artifact(folder, kind=KIND, facts=facts, write=write)


def open_release(folder: Path) -> Manifest:
    """Return a release's manifest.

    Raises:
        ArtifactIncomplete: no whole release there.
    """
    return open_artifact(folder, kind=KIND)


def load_recipe_of(folder: Path) -> Recipe:
    """Return the recipe a release was trained by."""
    return load_recipe(folder / RECIPE)


def seen_of(folder: Path) -> Seen:
    """Return what a release's lists do with a user's own ads: they are kept by one that does not say.

    Raises:
        ArtifactIncomplete: no whole release there.
    """
    return "leave_out" if open_release(folder).facts.get("seen") == "leave_out" else "keep"


def trained_until(folder: Path) -> datetime | None:
    """Return until when the training of a release read behaviors; None of a release that does not say."""
    until = json.loads((folder / METRICS).read_text()).get("training", {}).get(UNTIL)
    return None if until is None else datetime.fromisoformat(until)


def load_vocabulary(folder: Path) -> Vocabulary:
    """Return a release's vocabulary."""
    return Vocabulary.from_json(json.loads((folder / VOCABULARY).read_text()))


def load_text_tokenizer(folder: Path) -> Tokenizer:
    """Return a release's text tokenizer, which has no special tokens."""
    return Tokenizer.from_file(str(folder / TEXT_TOKENIZER))


def load_prompt_encoder(release_folder: Path) -> PromptEncoder:
    """Return the encoder of a release's prompts.

    Raises:
        ArtifactIncomplete: no whole release there.
    """
    open_release(release_folder)
    encode = text_encoder(load_text_tokenizer(release_folder))
    return PromptEncoder(load_vocabulary(release_folder), encode, load_recipe_of(release_folder).prompt)
