"""An exponential mean of the weights: steadier than the weights of the last step, and usually better.

Ours (Polyak & Juditsky, 1992); the paper releases the last step's. The decay is warmed up, so that a short stage is
not held back by where it started.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FILE = "average.safetensors"


class Average(TrainerCallback):  # type: ignore[misc]
    """Follows a model's trained weights; place it before what reads the mean at the end of a step.

    Args:
        model: the one in training; its present weights are the mean's first.
        decay: of the mean, a step; at most (1 + steps) / (10 + steps).
    """

    def __init__(self, model: PreTrainedModel, *, decay: float) -> None:
        self._decay = decay
        self._weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._mean = {name: value.detach().clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def on_step_end(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        """Move the mean towards the weights."""
        decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
        torch._foreach_lerp_(list(self._mean.values()), list(self._weights.values()), 1.0 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the mean as its weights as long as the context lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def give(self) -> None:
        """Let the model keep the mean."""
        for name, value in self._weights.items():
            value.copy_(self._mean[name])

    def write(self, folder: Path) -> None:
        """Write the mean into a checkpoint."""
        save_file(self._mean, folder / FILE)

    def read(self, folder: Path) -> None:
        """Go on with the mean that `write` wrote."""
        for name, value in load_file(folder / FILE).items():
            self._mean[name].copy_(value)

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._weights.items():
            kept = value.detach().clone()
            value.copy_(self._mean[name])
            self._mean[name].copy_(kept)
