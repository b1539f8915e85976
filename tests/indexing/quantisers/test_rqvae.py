"""Eq. 2-6 by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leadre.indexing.quantisers import residual_kmeans, rqvae
from leadre.indexing.quantisers.quantiser import Floats
from leadre.indexing.quantisers.rqvae import RqVae, fit_rqvae, quantisation_loss, reconstruction_loss


def test_eq_5_sums_squared_errors_over_ads() -> None:
    embeddings = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    reconstructed = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    # ad 1: 1 + 0, ad 2: 4 + 9
    assert reconstruction_loss(embeddings, reconstructed).item() == pytest.approx(14)


def test_eq_6_weighs_the_commitment_by_beta() -> None:
    residuals = torch.tensor([[[1.0, 0.0]], [[0.5, 0.0]]], requires_grad=True)  # 2 levels, 1 ad
    chosen = torch.tensor([[[0.0, 0.0]], [[0.5, 2.0]]], requires_grad=True)
    loss = quantisation_loss(residuals, chosen, 0.25)
    # level 1: 1, level 2: 4; once for the codebooks, 0.25 times for the encoder
    assert loss.item() == pytest.approx(5 + 0.25 * 5)
    loss.backward()
    assert chosen.grad is not None
    assert residuals.grad is not None
    # d/de |r - e|^2 = 2 (e - r), and beta times the opposite for r: sg[.] keeps the two apart
    assert chosen.grad.tolist() == [[[-2.0, 0.0]], [[0.0, 4.0]]]
    assert residuals.grad.tolist() == [[[0.5, 0.0]], [[0.0, -1.0]]]


def test_the_decoder_sees_the_quantised_embedding_and_the_encoder_gets_its_gradient() -> None:
    torch.manual_seed(0)
    model = RqVae(inputs=6, hidden=(5,), width=3, levels=2, codes=4)
    torch.nn.init.normal_(model.codebooks)
    embeddings = torch.randn(7, 6)
    reconstructed, codes, residuals, chosen = model(embeddings)
    assert codes.shape == (2, 7)
    assert residuals.shape == chosen.shape == (2, 7, 3)
    torch.testing.assert_close(reconstructed, model.decoder(chosen.sum(dim=0)))  # Eq. 4
    torch.testing.assert_close(residuals[1], residuals[0] - chosen[0])  # Eq. 3
    distances = (residuals[:, :, None] - model.codebooks[:, None]).square().sum(dim=-1)
    torch.testing.assert_close(codes, distances.argmin(dim=-1))  # Eq. 2
    reconstruction_loss(embeddings, reconstructed).backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0
    assert model.codebooks.grad is None  # reconstruction does not move the codes, Eq. 6 does


def test_eq_6_moves_each_code_by_its_own_level_alone() -> None:
    torch.manual_seed(0)
    model = RqVae(inputs=6, hidden=(5,), width=3, levels=2, codes=4)
    torch.nn.init.normal_(model.codebooks)
    _, codes, residuals, chosen = model(torch.randn(7, 6))
    quantisation_loss(residuals, chosen, 0.25).backward()
    expected = torch.zeros(2, 4, 3)
    for level in range(2):
        expected[level].index_add_(0, codes[level], 2 * (chosen[level] - residuals[level]).detach())
    torch.testing.assert_close(model.codebooks.grad, expected)


def test_a_code_without_ads_is_moved_onto_a_residual() -> None:
    torch.manual_seed(0)
    model = RqVae(inputs=6, hidden=(5,), width=3, levels=2, codes=4)
    torch.nn.init.normal_(model.codebooks)
    ads = torch.randn(9, 6)
    used = torch.tensor([[True, True, False, True], [True] * 4])
    before = model.codebooks.detach().clone()
    rqvae._revive(model, ads, used, torch.Generator().manual_seed(0))
    assert (model.codebooks[0, 2] - model.encoder(ads)).abs().sum(dim=1).min() == 0
    model.codebooks.data[0, 2] = before[0, 2]
    assert torch.equal(model.codebooks, before)


def test_more_ads_than_teach_kmeans_use_every_code(monkeypatch: pytest.MonkeyPatch, clusters: Floats) -> None:
    monkeypatch.setattr(residual_kmeans, "_ADS_PER_CODE", 10)  # 250 of the 500
    monkeypatch.setattr(rqvae, "_REVIVAL_STEPS", 3)
    quantiser = fit_rqvae(
        clusters,
        levels=3,
        codes=25,
        width=4,
        hidden=(9,),
        beta=0.25,
        epochs=7,
        batch_size=64,
        learning_rate=3e-3,
        seed=0,
    )
    codes, _ = quantiser.assign(clusters)
    assert [len(np.unique(codes[:, level])) for level in range(3)] == [25, 25, 25]
