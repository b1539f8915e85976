"""From a release on disk, or a model in memory, to an engine. LEADRE §3.4, §4.4.2."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from leadre.collaborative.blend import Collaborative
from leadre.decoding.combined.engine import RankedEngine
from leadre.decoding.combined.ranker import Ranker
from leadre.decoding.device.engine import DeviceEngine
from leadre.decoding.device.fp8 import quantise_model
from leadre.decoding.diversity import with_variety
from leadre.decoding.engine import Engine, Score
from leadre.decoding.exact.engine import BeamSearchEngine
from leadre.decoding.exact.fusion import Fusion, IndexedSignal
from leadre.decoding.exact.hf import HfDecoder
from leadre.decoding.exact.search import Decoder
from leadre.decoding.exact.shared_prefix import SharedPrefixDecoder
from leadre.decoding.network import layers
from leadre.decoding.release import check_codes, opened_release
from leadre.decoding.stub import StubEngine
from leadre.errors import ArtifactIncomplete, ConfigError, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import load_recipe

Kind = Literal["auto", "device", "hf", "shared_prefix", "stub"]
Precision = Literal["fp32", "bf16", "fp8"]


def load_engine(
    release_folder: Path,
    *,
    index: AdIndex,
    kind: Kind = "auto",
    device: str = "cpu",
    precision: Precision = "fp32",
    score: Score | None = None,
    collaborative_weight: float | None = None,
    variety: float | None = None,
) -> Engine:
    """Load a release's model and put it behind an index.

    Args:
        release_folder: an artifact of kind "release".
        index: the index that the release was trained for.
        kind: "auto" takes `shared_prefix` where it supports the architecture and `hf` elsewhere; "stub" loads no model.
        device: as torch names it.
        precision: of weights and activations; scores are float32 always. "fp8": of the layers' projections, the rest is
            bf16.
        score: another one than the recipe's.
        collaborative_weight: the share of the release's collaborative signal in the beam, in place of the one it was
            calibrated to, or of its ranker; 0: the LLM alone.
        variety: another share of variety than the recipe's; 0: the order of the scores.

    Raises:
        ArtifactIncomplete: no whole release there.
        ReleaseMismatch: trained for another index version, or its vocabulary does not fit the index or the model.
        ConfigError: `kind` does not support the model.
    """
    _, vocabulary = opened_release(release_folder, index=index)
    if kind == "stub":
        check_codes(vocabulary, index)
        return StubEngine(index, vocabulary_size=vocabulary.size)
    model = AutoModelForCausalLM.from_pretrained(
        release_folder / "model",
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
    ).to(device)
    if precision == "fp8":
        quantise_model(model)
    recipe = load_recipe(release_folder / "recipe.toml").decoding
    ranker = Ranker.load(release_folder) if collaborative_weight is None else None
    weight = collaborative_weight if ranker is None else 0.0
    fusion = load_fusion(release_folder, index=index, vocabulary=vocabulary, weight=weight)
    engine = engine_of(model, index=index, vocabulary=vocabulary, score=score or recipe.score, kind=kind, fusion=fusion)
    if ranker is not None:
        signal = load_signal(release_folder, index=index, vocabulary=vocabulary)
        engine = RankedEngine(engine, signal=signal, ranker=ranker)
    return with_variety(engine, index=index, share=recipe.variety if variety is None else variety)


def engine_of(
    model: PreTrainedModel,
    *,
    index: AdIndex,
    vocabulary: Vocabulary,
    score: Score,
    kind: Literal["auto", "device", "hf", "shared_prefix"] = "auto",
    fusion: Fusion | None = None,
) -> Engine:
    """Put a model in memory behind an index, as `load_engine` does; the model is set to evaluation mode.

    Raises:
        ReleaseMismatch: the vocabulary does not fit the index or the model.
        ConfigError: `kind` does not support the model, or the fusion of scores.
    """
    if fusion is not None and score == "valid":
        raise ConfigError(
            "the collaborative signal adds to sums of log-probabilities, which score 'valid' does not give; decode by "
            "'level', or with collaborative_weight 0"
        )
    check_codes(vocabulary, index)
    tokens = model.get_input_embeddings().weight.shape[0]  # an adapted embedding has no num_embeddings
    if tokens < vocabulary.size:
        raise ReleaseMismatch(
            f"the model has {tokens} token embeddings, the vocabulary {vocabulary.size} tokens; "
            "take both from one release"
        )
    supported = layers.supports(model)
    if kind in ("device", "shared_prefix") and not supported:
        raise ConfigError(f"{kind} does not compute {model.config.model_type!r} models like this one; use kind 'hf'")
    if kind == "device":
        if fusion is not None:
            raise ConfigError(
                "kind 'device' does not fuse a collaborative signal into the beam yet; use 'shared_prefix' on that "
                "device, or collaborative_weight 0"
            )
        return DeviceEngine(model.eval(), index=index, vocabulary=vocabulary, score=score)
    make = HfDecoder if kind == "hf" or not supported else SharedPrefixDecoder
    decoder: Decoder = make(model.eval(), vocabulary=vocabulary, score=score)
    return BeamSearchEngine(decoder, index=index, fusion=fusion)


def load_fusion(
    release_folder: Path, *, index: AdIndex, vocabulary: Vocabulary, weight: float | None = None
) -> Fusion | None:
    """Return a release's collaborative signal over an index; None where it has none, or a share of 0.

    Args:
        release_folder: an artifact of kind "release".
        index: the ads.
        vocabulary: the release's.
        weight: another share than it was calibrated to.
    """
    found = None if weight == 0.0 else Collaborative.load(release_folder)
    if found is None:
        return None
    signal, share = found
    share = share if weight is None else weight
    if share == 0.0:
        return None
    return Fusion(signal, weight=share, index=index, vocabulary=vocabulary)


def load_signal(release_folder: Path, *, index: AdIndex, vocabulary: Vocabulary) -> IndexedSignal:
    """Return a release's collaborative signal over an index, for its ranker.

    Args:
        release_folder: an artifact of kind "release".
        index: the ads.
        vocabulary: the release's.

    Raises:
        ArtifactIncomplete: it has none.
    """
    found = Collaborative.load(release_folder)
    if found is None:
        raise ArtifactIncomplete(f"{release_folder} has a ranker and no collaborative signal; train the release again")
    return IndexedSignal(found[0], index=index, vocabulary=vocabulary)
