"""What the benchmarks share: a toy model and index, how answers are compared, and how time is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from leadre.domain.retrieval import Beam
from leadre.indexing.ad_index import AdIndex
from leadre.indexing.trie import Trie

CODES = 1024
LEVELS = 4
CODE_COUNTS = (CODES,) * LEVELS + (8,)
TEXT_VOCABULARY = 32_000


def compare(
    answers: list[list[Beam]], sequences: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the share of the peer's beams that we have at the same rank, and the largest score difference there."""
    ours = np.array([[beam.sid.codes for beam in beams] for beams in answers])
    same = (ours == sequences).all(axis=-1)
    difference = np.abs(np.array([[beam.log_probability for beam in beams] for beams in answers]) - scores)
    return float(same.mean()), float(difference[same].max(initial=0.0))


def toy_model(vocabulary_size: int, *, positions: int, width: int = 256, layers: int = 4) -> PreTrainedModel:
    """Return a Qwen2 of random weights."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        head_dim=64,
        max_position_embeddings=positions,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: PreTrainedModel = Qwen2ForCausalLM(config).eval()
    return model


def toy_index(ads: int) -> AdIndex:
    """Return an index of at most so many ads with random S-IDs."""
    flat = np.unique(np.random.default_rng(0).integers(0, CODES**LEVELS, ads))
    codes = np.stack((*np.unravel_index(flat, (CODES,) * LEVELS), np.zeros_like(flat)), axis=1).astype(np.int32)
    ads = len(codes)
    return AdIndex(
        version="bench",
        ad_ids=np.arange(ads),
        codes=codes,
        first_categories=np.zeros(ads, np.int32),
        second_categories=np.zeros(ads, np.int32),
        category_names=("all",),
        advertiser_ids=np.zeros(ads, np.int64),
        embeddings=np.zeros((ads, 1), np.float32),
        trie=Trie.build(codes),
        code_counts=CODE_COUNTS,
        quality={},
    )


def cell_of(text: str) -> tuple[int, int, int]:
    """Read "users x beams x prompt", for example 1x128x512."""
    users, beams, prompt = (int(number) for number in text.lower().split("x"))
    return users, beams, prompt


def timed(call: Callable[[], Any], *, repeat: int, clock: Callable[[], float] = time.process_time) -> tuple[Any, float]:
    """Return the last result and the least seconds of the clock."""
    best = float("inf")
    for _ in range(repeat):
        started = clock()
        result = call()
        best = min(best, clock() - started)
    return result, best
