"""Dropout of a small model from scratch: of its embeddings and of what each layer adds, while it trains.

Ours; the paper fine-tunes a pretrained LLM without. transformers' Qwen and Llama models know dropout of attention
weights alone, so it is hooked onto their modules as long as training lasts; the model itself stays a plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

ADDS = ("o_proj", "down_proj")
"""The modules whose outputs a layer adds to its stream."""


@contextmanager
def dropping_out(model: PreTrainedModel, rate: float) -> Iterator[None]:
    """Drop out values while `model` is in training mode, as long as the context lasts.

    Args:
        model: of a family with the modules `ADDS`.
        rate: share of values; 0: nothing happens.
    """

    def drop(module: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, rate, training=module.training)

    places = [model.get_input_embeddings()]
    places += [module for name, module in model.named_modules() if name.rpartition(".")[2] in ADDS]
    hooks = [place.register_forward_hook(drop) for place in places] if rate else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
