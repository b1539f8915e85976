"""The language model: a small one from a configuration, or a pretrained base with code tokens appended.

LEADRE §5.1.3 (the paper's base is Hunyuan, 1B).
"""

from __future__ import annotations

from typing import Literal

import torch
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
from leadre.recipe import ModelRecipe

_CONFIGS: dict[str, type[PreTrainedConfig]] = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def build_model(
    recipe: ModelRecipe, *, vocabulary_size: int, positions: int, pad: int, eos: int, seed: int
) -> PreTrainedModel:
    """Return the model to train, in float32.

    Args:
        recipe: its base or its sizes.
        vocabulary_size: text tokens, special tokens and codes together.
        positions: longest prompt with its response, in tokens.
        pad: token id of padding.
        eos: token id of the end of a text.
        seed: of the initial weights.

    Raises:
        ConfigError: sizes that do not fit each other, or a base that cannot be loaded or is too short.
    """
    set_seed(seed)
    if recipe.base_model:
        return _extend_base(recipe.base_model, vocabulary_size=vocabulary_size, positions=positions, pad=pad)
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


def training_type(precision: Literal["auto", "bf16", "fp32"]) -> torch.dtype:
    """Return what to multiply in: bfloat16 if asked for, or by "auto" on hardware that multiplies it natively."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _extend_base(base_model: str, *, vocabulary_size: int, positions: int, pad: int) -> PreTrainedModel:
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base_model, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.base_model={base_model!r} cannot be loaded (a causal LM in safetensors is needed): {error}"
        ) from None
    longest = getattr(model.config, "max_position_embeddings", positions)
    if longest < positions:
        raise ConfigError(f"model.base_model={base_model!r} reads {longest} tokens, prompts may have {positions}")
    embedding = model.get_input_embeddings().weight
    known, scale = embedding.shape[0], float(embedding.detach().std())
    if vocabulary_size > known:
        model.resize_token_embeddings(vocabulary_size, mean_resizing=False)
        with torch.no_grad():
            for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
                layer.weight[known:].normal_(0.0, scale)
    model.config.pad_token_id = pad
    return model
