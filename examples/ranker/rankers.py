"""Two rankers, each tuned on validation rows: LightGBM, and a deep and cross network (DCN-V2) in torch. LEADRE §5.3.

Both see the same columns and are tuned over the same grid with and without LEADRE's features, so that what is compared
is the features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import lightgbm
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from examples.ranker.measures import log_loss

Array = NDArray[np.float64]
GRID = tuple(itertools.product((7, 15, 31), (40, 200), (10.0,)))
"""Leaves, rows of a leaf, L2 (ours)."""
ROUNDS, PATIENCE, RATE = 400, 20, 0.1
SEEDS = 3
"""Trainings whose mean is served: one is noisier than what is measured (ours)."""
DCN_GRID = ((1e-3, 1e-4), (1e-3, 1e-2), (3e-3, 1e-3))
"""Learning rate, weight decay (ours)."""
DCN_EPOCHS, DCN_PATIENCE, DCN_BATCH = 30, 3, 512
MOST_CODES = 100
"""Texts of more different values are left out as codes: what users did with them is among the features (ours)."""


class Ranker(Protocol):
    """Foretells labels from columns by name."""

    def predict(self, rows: pd.DataFrame) -> Array:
        """Return a probability for each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosted:
    """The mean of some LightGBM models."""

    columns: tuple[str, ...]
    models: tuple[lightgbm.Booster, ...]
    chosen: tuple[float, ...]

    def predict(self, rows: pd.DataFrame) -> Array:
        """Return a probability for each row."""
        values = rows[list(self.columns)].to_numpy(np.float64)
        return np.asarray(np.mean([model.predict(values, num_threads=1) for model in self.models], axis=0))


def boosted(
    train: pd.DataFrame, valid: pd.DataFrame, columns: Sequence[str], codes: Sequence[str], *, seed: int
) -> Boosted:
    """Train LightGBM: every point of the grid, stopped and chosen by the log-loss of the validation rows.

    Args:
        train: `label` and the columns.
        valid: likewise, later ones.
        columns: what it sees.
        codes: those of them that are codes.
        seed: of the first training.
    """
    kept = _kept(train, columns, codes)
    coded = [place for place, name in enumerate(kept) if name in codes]
    best, chosen = np.inf, GRID[0]
    models: tuple[lightgbm.Booster, ...] = ()
    for point in GRID:
        model = _boost(train, valid, kept, coded, point, seed=seed)
        loss = log_loss(np.asarray(model.predict(_values(valid, kept))), _labels(valid))
        if loss < best:
            best, chosen, models = loss, point, (model,)
    more = tuple(_boost(train, valid, kept, coded, chosen, seed=seed + n) for n in range(1, SEEDS))
    return Boosted(columns=kept, models=(*models, *more), chosen=chosen)


def _boost(
    train: pd.DataFrame,
    valid: pd.DataFrame,
    columns: Sequence[str],
    coded: Sequence[int],
    point: tuple[int, int, float],
    *,
    seed: int,
) -> lightgbm.Booster:
    leaves, rows, l2 = point
    parameters = {
        "objective": "binary",
        "learning_rate": RATE,
        "num_leaves": leaves,
        "min_data_in_leaf": rows,
        "lambda_l2": l2,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "cat_smooth": 50,
        "num_threads": 1,
        "seed": seed,
        "deterministic": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(_values(train, columns), _labels(train), categorical_feature=list(coded))
    held = lightgbm.Dataset(_values(valid, columns), _labels(valid), reference=data)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(parameters, data, ROUNDS, valid_sets=[held], callbacks=[stop])


class DeepCross:
    """A trained network and how its columns are scaled."""

    def __init__(self, columns: tuple[str, ...], codes: tuple[str, ...], network: _Network, scale: tuple[Array, Array]):
        self.columns = columns
        self._codes, self._network, self._scale = codes, network, scale

    def predict(self, rows: pd.DataFrame) -> Array:
        """Return a probability for each row."""
        numbers = [name for name in self.columns if name not in self._codes]
        dense, coded = _tensors(rows, numbers, self._codes, self._scale)
        with torch.no_grad():
            return torch.sigmoid(self._network(dense, coded)).numpy().astype(np.float64)


def deep_cross(
    train: pd.DataFrame, valid: pd.DataFrame, columns: Sequence[str], codes: Sequence[str], *, seed: int
) -> DeepCross:
    """Train a DCN-V2 for every point of the grid, stopped and chosen by the log-loss of the validation rows."""
    kept = _kept(train, columns, codes)
    coded = tuple(name for name in kept if name in codes)
    numbers = [name for name in kept if name not in codes]
    plain = _squeezed(_values(train, numbers))
    scale = plain.mean(axis=0), plain.std(axis=0) + 1e-6
    sizes = [int(train[name].max()) + 3 for name in coded]
    best, chosen = np.inf, None
    for rate, decay in DCN_GRID:
        torch.manual_seed(seed)
        network = _Network(len(numbers), sizes)
        loss = _fit(network, train, valid, numbers, coded, scale, rate=rate, decay=decay, seed=seed)
        if loss < best:
            best, chosen = loss, network
    assert chosen is not None  # noqa: S101 - the grid is not empty
    return DeepCross(kept, coded, chosen, scale)


class _Network(nn.Module):
    """x_{l+1} = x_0 * (W x_l + b) + x_l beside two dense layers."""

    def __init__(self, numbers: int, sizes: Sequence[int], *, width: int = 8, layers: int = 2) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.embeddings = nn.ModuleList([nn.Embedding(size, width) for size in sizes])
        inputs = numbers + width * len(sizes)
        self.cross = nn.ModuleList([nn.Linear(inputs, inputs) for _ in range(layers)])
        self.deep = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(inputs + 32, 1)

    def forward(self, dense: torch.Tensor, coded: torch.Tensor) -> torch.Tensor:
        """Return logits [R] of numbers [R, N] and codes [R, C]."""
        sized = enumerate(zip(self.embeddings, self.sizes, strict=True))
        codes = [of(coded[:, place].clamp(0, size - 1)) for place, (of, size) in sized]
        first = crossed = torch.cat([dense, *codes], dim=1)
        for layer in self.cross:
            crossed = first * layer(crossed) + crossed
        logits: torch.Tensor = self.head(torch.cat([crossed, self.deep(first)], dim=1))
        return logits.squeeze(1)


def _fit(
    network: _Network,
    train: pd.DataFrame,
    valid: pd.DataFrame,
    numbers: Sequence[str],
    codes: Sequence[str],
    scale: tuple[Array, Array],
    *,
    rate: float,
    decay: float,
    seed: int,
) -> float:
    """Train until the validation rows' loss rises; leave the best weights in; return that loss."""
    dense, coded = _tensors(train, numbers, codes, scale)
    held = _tensors(valid, numbers, codes, scale)
    labels, held_labels = (torch.tensor(_labels(of), dtype=torch.float32) for of in (train, valid))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    order = torch.Generator().manual_seed(seed)
    best, kept, waited = np.inf, network.state_dict(), 0
    for _ in range(DCN_EPOCHS):
        network.train()
        for batch in torch.split(torch.randperm(len(labels), generator=order), DCN_BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(network(dense[batch], coded[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        network.eval()
        with torch.no_grad():
            now = float(nn.functional.binary_cross_entropy_with_logits(network(*held), held_labels))
        waited = 0 if now < best else waited + 1
        if now < best:
            best, kept = now, {name: value.clone() for name, value in network.state_dict().items()}
        if waited >= DCN_PATIENCE:
            break
    network.load_state_dict(kept)
    network.eval()
    return best


def _tensors(
    rows: pd.DataFrame, numbers: Sequence[str], codes: Sequence[str], scale: tuple[Array, Array]
) -> tuple[torch.Tensor, torch.Tensor]:
    mean, spread = scale
    dense = np.clip((_squeezed(_values(rows, numbers)) - mean) / spread, -5, 5)
    coded = _values(rows, list(codes)).astype(np.int64) + 1  # -1 is unknown
    return torch.tensor(dense, dtype=torch.float32), torch.tensor(coded)


def _squeezed(values: Array) -> Array:
    return np.sign(values) * np.log1p(np.abs(values))


def _kept(train: pd.DataFrame, columns: Sequence[str], codes: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that say anything of the training rows, codes of few values only."""
    return tuple(
        name for name in columns if (count := train[name].nunique()) > 1 and (name not in codes or count <= MOST_CODES)
    )


def _values(rows: pd.DataFrame, columns: Sequence[str]) -> Array:
    return np.asarray(rows[list(columns)].to_numpy(np.float64))


def _labels(rows: pd.DataFrame) -> Array:
    return np.asarray(rows["label"].to_numpy(np.float64))
