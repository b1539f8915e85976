"""Tiny models and indexes for the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import (
    HunYuanDenseV1Config,
    HunYuanDenseV1ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie
from leadre.prompts.vocabulary import Vocabulary

CODE_COUNTS = (7, 5, 6, 4)
MakeIndex = Callable[..., AdIndex]
MakeModel = Callable[..., PreTrainedModel]


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(text_size=23, code_counts=CODE_COUNTS)


@pytest.fixture(scope="session")
def make_index() -> MakeIndex:
    """An index of random S-IDs, or of given ones."""

    def make(
        ads: int = 60, *, seed: int = 0, codes: np.ndarray | None = None, counts: Sequence[int] = CODE_COUNTS
    ) -> AdIndex:
        if codes is None:
            flat = np.random.default_rng(seed).choice(int(np.prod(counts)), ads, replace=False)
            codes = np.stack(np.unravel_index(np.sort(flat), counts), axis=1)
        codes = codes.astype(np.int32)
        ads = len(codes)
        return AdIndex(
            version="tiny",
            ad_ids=np.arange(1000, 1000 + ads),
            codes=codes,
            first_categories=np.zeros(ads, np.int32),
            second_categories=np.zeros(ads, np.int32),
            category_names=("all",),
            advertiser_ids=np.zeros(ads, np.int64),
            embeddings=np.zeros((ads, 3), np.float32),
            trie=Trie.build(codes),
            code_counts=tuple(counts),
            quality={},
        )

    return make


@pytest.fixture(scope="session")
def make_model(vocabulary: Vocabulary) -> MakeModel:
    """A tiny causal LM with weights large enough for decided, different probabilities."""

    def make(architecture: str = "qwen2", *, seed: int = 0, positions: int = 48, key_heads: int = 2) -> PreTrainedModel:
        config_class, model_class = {
            "hunyuan": (HunYuanDenseV1Config, HunYuanDenseV1ForCausalLM),
            "qwen2": (Qwen2Config, Qwen2ForCausalLM),
            "qwen3": (Qwen3Config, Qwen3ForCausalLM),
            "llama": (LlamaConfig, LlamaForCausalLM),
        }[architecture]
        config = config_class(
            vocab_size=vocabulary.size + 5,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=key_heads,
            head_dim=6,
            max_position_embeddings=positions,
            initializer_range=0.5,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        torch.manual_seed(seed)
        model: PreTrainedModel = model_class(config).eval()
        return model

    return make


@pytest.fixture(scope="session")
def make_prompts() -> Callable[..., list[list[int]]]:
    """Random prompts of the text tokens."""

    def make(count: int, *, seed: int = 0, shortest: int = 1, longest: int = 20) -> list[list[int]]:
        random = np.random.default_rng(seed)
        return [random.integers(0, 23, random.integers(shortest, longest + 1)).tolist() for _ in range(count)]

    return make
