"""The language model: a small one from a configuration, or a pretrained base with code tokens appended.

LEADRE §5.1.3 (the paper's base is Hunyuan, 1B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    set_seed,
)

from leadre.errors import ConfigError
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import ModelRecipe

_NOISE = 0.25  # of the scale: codes that the index does not use start different
_SMALLEST = 1e-12
_CONFIGS: dict[str, type[PreTrainedConfig]] = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def build_model(
    recipe: ModelRecipe,
    *,
    vocabulary_size: int,
    text_tokens: int = 0,
    positions: int,
    pad: int,
    eos: int,
    seed: int,
) -> PreTrainedModel:
    """Return the model to train, in float32.

    Args:
        recipe: its base or its sizes.
        vocabulary_size: text tokens, special tokens and codes together.
        text_tokens: ids of text are below this; a base must have embeddings of them all.
        positions: longest prompt with its response, in tokens.
        pad: token id of padding.
        eos: token id of the end of a text.
        seed: of the initial weights.

    Raises:
        ConfigError: sizes that do not fit each other, or a base that cannot be loaded, is incomplete, is no causal LM
            or is too short.
    """
    set_seed(seed)
    if recipe.base_model:
        return _extend_base(
            recipe.base_model,
            vocabulary_size=vocabulary_size,
            text_tokens=text_tokens,
            positions=positions,
            pad=pad,
        )
    if recipe.hidden_size % (2 * recipe.heads):
        raise ConfigError(
            f"model.hidden_size={recipe.hidden_size} must be a multiple of twice model.heads={recipe.heads}"
        )
    config = _CONFIGS[recipe.architecture](
        vocab_size=vocabulary_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.hidden_size // recipe.heads,
        intermediate_size=recipe.feed_forward,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        use_cache=False,
        pad_token_id=pad,
        eos_token_id=eos,
        bos_token_id=None,
        dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_config(config)


def start_codes(
    model: PreTrainedModel, vectors: Sequence[NDArray[np.float32]], *, vocabulary: Vocabulary, seed: int
) -> None:
    """Let the embeddings of code tokens start at the vectors of the codes, and a little noise, in place.

    Each level's vectors are scaled to the standard deviation that the embedding has there. With S-IDs from residual
    codebooks an ad's codes then add up to its own vector, which the first attention layer sees from the first step.

    Args:
        model: a causal LM over the vocabulary.
        vectors: float32[codes, width] for each level but the disambiguation codes'; of more components than the
            model is wide the widest are kept.
        vocabulary: where the codes stand.
        seed: of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    every = torch.from_numpy(np.concatenate(vectors))
    directions = torch.linalg.eigh(every.T @ every).eigenvectors.flip(1)  # the widest first
    tables = [model.get_input_embeddings().weight]
    if not model.config.tie_word_embeddings:
        tables.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for table in tables:
            kept = min(table.shape[1], every.shape[1])
            for level, own in enumerate(vectors):
                rows = slice(vocabulary.level_offsets[level], vocabulary.level_offsets[level] + len(own))
                scale = float(table[rows].std())
                start = torch.zeros(len(own), table.shape[1])
                start[:, :kept] = torch.from_numpy(own) @ directions[:, :kept]
                noise = torch.randn(start.shape, generator=generator)
                table[rows] = start * (scale / start.std().clamp(min=_SMALLEST)) + _NOISE * scale * noise


def _extend_base(
    base_model: str, *, vocabulary_size: int, text_tokens: int, positions: int, pad: int
) -> PreTrainedModel:
    model = _load_base(base_model)
    longest = getattr(model.config, "max_position_embeddings", positions)
    if longest < positions:
        raise ConfigError(f"model.base_model={base_model!r} reads {longest} tokens, prompts may have {positions}")
    embedding = model.get_input_embeddings().weight
    known, scale = embedding.shape[0], float(embedding.detach().std())
    if text_tokens > known:
        raise ConfigError(
            f"model.base_model={base_model!r} has a tokenizer of {text_tokens} tokens and embeddings of {known}: "
            "its files are of two models"
        )
    if vocabulary_size > known:
        model.resize_token_embeddings(vocabulary_size, mean_resizing=False)
        with torch.no_grad():
            for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
                layer.weight[known:].normal_(0.0, scale)
    model.config.pad_token_id = pad
    return model


def _load_base(base_model: str) -> PreTrainedModel:
    """Load a causal language model, every weight of it from its files. Raises ConfigError."""
    said = f"model.base_model={base_model!r}"
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            base_model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # noqa: BLE001 - somebody else's files may make it raise anything
        raise ConfigError(f"{said} cannot be loaded (a causal LM in safetensors is needed): {error}") from None
    if missing := sorted(found["missing_keys"]):  # it would start from random weights there
        raise ConfigError(f"{said} lacks {len(missing)} of its weights, {missing[0]} first: its files are incomplete")
    if _sees_what_follows(model):
        raise ConfigError(f"{said} reads text in both directions ({model.config.model_type}); choose a causal LM")
    return cast(PreTrainedModel, model)


@torch.no_grad()
def _sees_what_follows(model: PreTrainedModel) -> bool:
    """Return whether a token's logits depend on a later token, as they do in an encoder."""
    one, other = model(input_ids=torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]])).logits[:, 2]
    return bool((one - other).norm() > 1e-4 * one.norm())
