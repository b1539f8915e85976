"""The RQ-VAE: an encoder, M residual codebooks and a decoder, trained to give the embedding back.

LEADRE §3.2, Eq. 2-6. What the paper leaves open is chosen thus: the encoder is an MLP over standardised embeddings,
mirrored in the decoder; the codebooks start from residual k-means on the encoder's outputs; a code that no ad chose
for some hundred steps is moved onto a residual of its level ("revival"); Adam with a cosine schedule. At the end,
with the encoder fixed, the first term of Eq. 6 is what k-means minimises: residual k-means from the learned codes on
takes it to a minimum, which also leaves no code without ads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from leadre.indexing.quantisers.quantiser import Floats, Quantiser, check_embeddings, quantise
from leadre.indexing.quantisers.residual_kmeans import residual_codebooks, sample

_REVIVAL_ADS = 32_768  # unused codes move to residuals of some of so many ads
_NO_SPREAD = 1e-6  # of equal ads, by rounding
_REVIVAL_STEPS = 200  # after so many, or an epoch if that is less


def reconstruction_loss(embeddings: Tensor, reconstructed: Tensor) -> Tensor:
    """Return the sum over ads of ||x_a - x^_a||^2 (Eq. 5); both [N, d]."""
    return (embeddings - reconstructed).square().sum()


def quantisation_loss(residuals: Tensor, chosen: Tensor, beta: float) -> Tensor:
    """Return the sum over ads and levels of ||sg[r] - e||^2 + beta ||r - sg[e]||^2 (Eq. 6).

    Args:
        residuals: r_a^l, [M, N, width].
        chosen: e_{c_a^l}^l, the code vector each ad chose at each level, [M, N, width].
        beta: weight of the commitment term.
    """
    codebook = (residuals.detach() - chosen).square().sum()
    commitment = (residuals - chosen.detach()).square().sum()
    return codebook + beta * commitment


class RqVae(nn.Module):
    """Encoder, codebooks [M, K, width] and decoder."""

    def __init__(self, *, inputs: int, hidden: tuple[int, ...], width: int, levels: int, codes: int) -> None:
        super().__init__()
        self.encoder = _mlp((inputs, *hidden, width))
        self.decoder = _mlp((width, *reversed(hidden), inputs))
        self.codebooks = nn.Parameter(torch.zeros(levels, codes, width))

    def quantise(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes [M, N], residuals [M, N, width] and chosen code vectors [M, N, width] (Eq. 2, 3).

        The residual of a level is differentiable in the encoder's output, not in the codes taken off before: a codebook
        learns from its own level alone.
        """
        codes = torch.from_numpy(quantise(hidden.detach().numpy(), self.codebooks.detach().numpy())[0].T).long()
        chosen = torch.stack([codebook[code] for codebook, code in zip(self.codebooks, codes, strict=True)])
        taken_off = chosen.detach().cumsum(dim=0) - chosen.detach()
        return codes, hidden - taken_off, chosen

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the reconstruction [N, d] beside what `quantise` returns; z_a = sum of the chosen vectors (Eq. 4)."""
        hidden = self.encoder(embeddings)
        codes, residuals, chosen = self.quantise(hidden)
        quantised = hidden + (chosen.sum(dim=0) - hidden).detach()  # straight-through
        return self.decoder(quantised), codes, residuals, chosen


def fit_rqvae(
    embeddings: Floats,
    *,
    levels: int,
    codes: int,
    width: int,
    hidden: tuple[int, ...],
    beta: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Quantiser:
    """Train an RQ-VAE and return its frozen encoder and codebooks.

    Deterministic: the same embeddings and seed give the same quantiser on the same machine.

    Args:
        embeddings: x_a, float32[N, d], N >= 1.
        levels: M.
        codes: K. More than there are distinct ads is allowed: the rest stay unused.
        width: d_RQ.
        hidden: widths of the encoder's hidden layers.
        beta: beta_quant of Eq. 6.
        epochs: passes over the ads.
        batch_size: ads in a step.
        learning_rate: Adam's highest rate.
        seed: of the start, the order of ads and revival.
        progress: called after each epoch.

    Raises:
        InvalidInput: a value that is not finite.
    """
    check_embeddings(embeddings)
    few = sample(embeddings, codes, seed)
    mean, spread = few.mean(axis=0), float(few.std(axis=0).mean())
    scale = spread if spread > _NO_SPREAD else 1.0

    def standardised(ads: Floats) -> Tensor:
        return torch.from_numpy((ads - mean) / np.float32(scale))

    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RqVae(inputs=embeddings.shape[1], hidden=hidden, width=width, levels=levels, codes=codes)
    _fit_codebooks(model, standardised(few), seed, start=None)
    ads = len(embeddings)
    steps = -(-ads // batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for epoch in range(epochs):
        used = torch.zeros(levels, codes, dtype=torch.bool)
        for step, rows in enumerate(torch.split(torch.randperm(ads, generator=random), batch_size), 1):
            batch = standardised(embeddings[rows.numpy()])
            reconstructed, chosen_codes, residuals, chosen = model(batch)
            loss = reconstruction_loss(batch, reconstructed) + quantisation_loss(residuals, chosen, beta)
            optimizer.zero_grad()
            torch.autograd.backward(loss / len(rows))
            optimizer.step()
            schedule.step()
            used.scatter_(1, chosen_codes, torch.ones((), dtype=torch.bool).expand_as(chosen_codes))
            if step % _REVIVAL_STEPS == 0 or step == steps < _REVIVAL_STEPS:
                some = torch.randint(ads, (min(ads, _REVIVAL_ADS),), generator=random)
                _revive(model, standardised(embeddings[some.numpy()]), used, random)
                used.zero_()
        if progress is not None:
            progress("fit codebooks", epoch + 1, epochs)
    _fit_codebooks(model, standardised(few), seed, start=model.codebooks.detach().numpy())
    return _freeze(model, mean, scale)


@torch.no_grad()
def _fit_codebooks(model: RqVae, ads: Tensor, seed: int, *, start: Floats | None) -> None:
    """Residual k-means on the encoder's outputs."""
    levels, codes, _ = model.codebooks.shape
    hidden = model.encoder(ads).numpy()
    found = residual_codebooks(hidden, levels=levels, codes=codes, seed=seed, start=start)
    model.codebooks.copy_(torch.from_numpy(found))


@torch.no_grad()
def _revive(model: RqVae, ads: Tensor, used: Tensor, random: torch.Generator) -> None:
    """Move each unused code onto the residual of some ad at its level."""
    if used.all():
        return
    _, residuals, _ = model.quantise(model.encoder(ads))
    for level, dead in enumerate(~used):
        places = torch.randint(len(ads), (int(dead.sum()),), generator=random)
        model.codebooks[level, dead] = residuals[level, places]


def _freeze(model: RqVae, mean: Floats, scale: float) -> Quantiser:
    linear = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    layers = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in linear]
    weight, bias = layers[0]  # the standardisation becomes part of the first layer
    weight = (weight / scale).astype(np.float32)
    layers[0] = (weight, (bias - weight @ mean).astype(np.float32))
    return Quantiser(layers=tuple(layers), codebooks=model.codebooks.detach().numpy().copy())


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
