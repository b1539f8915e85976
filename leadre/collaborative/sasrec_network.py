"""SASRec's network, and cross entropy over all items without the logits of a whole batch in memory.

Ours; Kang & McAuley 2018 §III. See leadre.collaborative.sasrec.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from leadre.precision import training_type
from leadre.recipe import SasRecRecipe

_ROWS_AT_ONCE = 256  # logits of so many positions stay in the processor's cache
_INITIAL_STD = 0.02
_NOISE = 0.3  # of the random start, left beside that from texts: items of one text are to become different
_SMALLEST = torch.finfo(torch.float32).tiny  # a probability's logarithm stays finite


class SasRecNetwork(nn.Module):
    """Causal self-attention over item numbers; the item embeddings are input and output (Kang & McAuley §III)."""

    def __init__(self, items: int, recipe: SasRecRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.positions = recipe.positions
        self.items = nn.Embedding(items, recipe.width)
        self.places = nn.Embedding(recipe.positions, recipe.width)
        self.dropout = nn.Dropout(recipe.dropout)
        self.blocks = nn.ModuleList(_Block(recipe) for _ in range(recipe.layers))
        self.norm = nn.LayerNorm(recipe.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=_INITIAL_STD)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.items.weight.device

    @torch.no_grad()
    def start_from(self, texts: NDArray[np.float32]) -> None:
        """Let items with like texts start with like embeddings: their principal components, and a little noise.

        Args:
            texts: float32[items, d].
        """
        centred = texts - texts.mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(min=_SMALLEST)
        # Few ads, or many of one text, leave most directions without any spread: torch's own eigh fails on that.
        directions = np.linalg.eigh((centred.T @ centred).astype(np.float64)).eigenvectors[:, ::-1]  # the widest first
        components = torch.from_numpy(centred @ directions[:, : self.items.embedding_dim].astype(np.float32))
        self.items.weight *= _NOISE
        scale = _INITIAL_STD / components.std().clamp(min=_SMALLEST)  # one text for all items: no components
        self.items.weight[:, : components.shape[1]] += components * scale

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the state after each position, float32[n, length, width].

        Args:
            numbers: int64[n, length], length up to `positions`, oldest first; rows are padded with -1 at their end.
        """
        real = numbers >= 0
        # Counted back from the newest, as the paper's left padding does: recent places are trained in every row.
        place = self.positions - real.sum(dim=1, keepdim=True) + torch.arange(numbers.shape[1], device=self.device)
        embedded = self.items(numbers.clamp(min=0)) * self.items.embedding_dim**0.5
        states = self.dropout(embedded + self.places(place.clamp(max=self.positions - 1)))
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.norm(states)
        return normed


class _Block(nn.Module):
    def __init__(self, recipe: SasRecRecipe) -> None:
        super().__init__()
        width = recipe.width
        self.heads = recipe.heads
        self.before_attention, self.before_feed_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attended, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(recipe.dropout), nn.Linear(width, width)
        )
        self.dropout = nn.Dropout(recipe.dropout)

    def forward(self, states: Tensor) -> Tensor:
        n, length, width = states.shape
        parts = self.attended(self.before_attention(states)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # padding is at the end, where no real position looks
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.dropout(self.mixed(seen.transpose(1, 2).reshape(n, length, width)))
        changed: Tensor = states + self.dropout(self.feed_forward(self.before_feed_forward(states)))
        return changed


class _SoftmaxLoss(torch.autograd.Function):
    """The loss and both its gradients in one pass over blocks of rows: the logits of a batch are never held."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        precision = training_type("auto")
        items = table.to(precision)
        to_states, to_table = torch.empty_like(states), torch.zeros_like(table)
        loss = states.new_zeros(())
        for start in range(0, len(states), _ROWS_AT_ONCE):
            block, wanted = states[start : start + _ROWS_AT_ONCE].to(precision), targets[start : start + _ROWS_AT_ONCE]
            errors = functional.softmax((block @ items.T).float(), dim=1)
            loss -= errors.gather(1, wanted[:, None]).clamp(min=_SMALLEST).log().sum()
            errors[torch.arange(len(wanted), device=errors.device), wanted] -= 1.0
            errors = errors.to(precision)
            to_states[start : start + len(wanted)] = errors @ items
            to_table += errors.T @ block
        ctx.save_for_backward(to_states, to_table)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        to_states, to_table = ctx.saved_tensors
        return gradient * to_states, gradient * to_table, None


def softmax_loss(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross entropy over all items; multiplies in bfloat16 where that is native.

    Args:
        states: float32[n, width].
        table: float32[items, width], the item embeddings.
        targets: int64[n], rows of `table`.
    """
    loss: Tensor = _SoftmaxLoss.apply(states, table, targets)  # type: ignore[no-untyped-call]
    return loss
