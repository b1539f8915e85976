"""A release without its model: its vocabulary, checked against an index, and the engines that load no model of ours.

LEADRE §4.4.2. Torch and transformers are not imported here, so proxies of engine servers need neither to decode, and an
engine server can run where only TensorRT-LLM's versions of them are.
"""

from __future__ import annotations

import json
from pathlib import Path

from leadre.artifacts import Manifest, open_artifact
from leadre.decoding.diversity import with_variety
from leadre.decoding.engine import Engine
from leadre.decoding.remote import Ask, RemoteEngine
from leadre.errors import ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import load_recipe


def opened_release(release_folder: Path, *, index: AdIndex) -> tuple[Manifest, Vocabulary]:
    """Return a release's manifest and vocabulary.

    Raises:
        ArtifactIncomplete: no whole release there.
        ReleaseMismatch: trained for another index version.
    """
    manifest = open_artifact(release_folder, kind="release")
    trained_for = manifest.facts["index_version"]
    if trained_for != index.version:
        raise ReleaseMismatch(
            f"release {manifest.name} was trained for index {trained_for}, this is index {index.version}; "
            "load the index that the release names"
        )
    vocabulary = Vocabulary.from_json(json.loads((release_folder / "vocabulary.json").read_text()))
    return manifest, vocabulary


def check_codes(vocabulary: Vocabulary, index: AdIndex) -> None:
    """Refuse a vocabulary that has no token for some code of the index.

    Raises:
        ReleaseMismatch: as it says.
    """
    spelled, needed = vocabulary.code_counts, index.code_counts
    if len(spelled) != len(needed) or any(has < needs for has, needs in zip(spelled, needed, strict=True)):
        raise ReleaseMismatch(
            f"the vocabulary has {spelled} codes a level, index {index.version} needs {needed}; train a release for it"
        )


def load_remote(release_folder: Path, *, index: AdIndex, ask: Ask) -> RemoteEngine:
    """Return a release's engine whose model is elsewhere: only the vocabulary and the recipe are read here.

    Args:
        release_folder: an artifact of kind "release".
        index: the index that the release was trained for.
        ask: has a question answered by an instance that serves the release.

    Raises:
        ArtifactIncomplete: no whole release there.
        ReleaseMismatch: trained for another index version, or its vocabulary does not fit the index.
    """
    manifest, vocabulary = opened_release(release_folder, index=index)
    check_codes(vocabulary, index)
    recipe = load_recipe(release_folder / "recipe.toml").decoding
    return RemoteEngine(ask, index=index, release=manifest.name, vocabulary_size=vocabulary.size, score=recipe.score)


def load_tensorrt(release_folder: Path, *, index: AdIndex, precision: str, beam_width: int, users: int) -> Engine:
    """Load a release into TensorRT-LLM: its model/, or with "fp8" the quantised model-fp8/ beside that.

    Args:
        release_folder: an artifact of kind "release".
        index: the index that the release was trained for.
        precision: "fp8" or another.
        beam_width: most beams a prompt, fixed when TensorRT-LLM starts.
        users: most prompts at once, likewise.

    Raises:
        ArtifactIncomplete, ReleaseMismatch: as `load_remote`.
        ConfigError: as `TensorRtEngine.load`.
    """
    from leadre.decoding.tensorrt.engine import TensorRtEngine

    _, vocabulary = opened_release(release_folder, index=index)
    check_codes(vocabulary, index)
    recipe = load_recipe(release_folder / "recipe.toml")
    engine = TensorRtEngine.load(
        release_folder / ("model-fp8" if precision == "fp8" else "model"),
        index=index,
        vocabulary=vocabulary,
        score=recipe.decoding.score,
        beam_width=beam_width,
        users=users,
        longest_prompt=recipe.prompt.budget_tokens,
    )
    return with_variety(engine, index=index, share=recipe.decoding.variety)
