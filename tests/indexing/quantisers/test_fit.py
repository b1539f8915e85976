"""All quantisers: deterministic, in full use, and true to the structure of their input."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from leadre.errors import ConfigError, InvalidInput
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Floats
from leadre.recipe import IndexRecipe

KINDS = ("rqvae", "residual_kmeans", "product")
Kind = Literal["rqvae", "residual_kmeans", "product"]


def recipe(kind: Kind, *, codes: int = 12, levels: int = 3, width: int = 5, seed: int = 0) -> IndexRecipe:
    return IndexRecipe(
        quantiser=kind,
        levels=levels,
        codes=codes,
        width=width,
        hidden=(17, 11),
        epochs=20,
        batch_size=64,
        learning_rate=3e-3,
        seed=seed,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_code_finds_the_clusters_and_every_code_is_used(clusters: Floats, kind: Kind) -> None:
    codes, quantised = fit_quantiser(clusters, recipe(kind)).assign(clusters)
    assert codes.shape == (500, 3)
    assert quantised.shape == (500, 5)
    pairs = np.unique(np.stack([codes[:, 0], np.arange(500) % 12]), axis=1)
    assert pairs.shape[1] <= 15  # 12 where codes and clusters match one to one
    assert [len(np.unique(codes[:, level])) for level in range(3)] == [12, 12, 12]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_codebooks(clusters: Floats, kind: Kind) -> None:
    first, again = fit_quantiser(clusters, recipe(kind)), fit_quantiser(clusters, recipe(kind))
    np.testing.assert_array_equal(first.codebooks, again.codebooks)
    other = fit_quantiser(clusters, recipe(kind, seed=1))
    assert (first.codebooks != other.codebooks).any()


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_ads_than_codes_leave_codes_unused(clusters: Floats, kind: Kind) -> None:
    codes, _ = fit_quantiser(clusters[:4], recipe(kind, codes=9)).assign(clusters[:4])
    assert len(np.unique(codes, axis=0)) == 4
    assert codes.max() < 9


@pytest.mark.parametrize("kind", KINDS)
def test_many_equal_ads_leave_finite_codebooks(clusters: Floats, kind: Kind) -> None:
    repeated = np.repeat(clusters[:3], 20, axis=0)
    quantiser = fit_quantiser(repeated, recipe(kind, codes=4))
    assert np.isfinite(quantiser.codebooks).all()
    codes, _ = quantiser.assign(clusters[:3])
    assert len(np.unique(codes, axis=0)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_refused_by_row(clusters: Floats, kind: Kind) -> None:
    bad = clusters.copy()
    bad[7, 2] = np.inf
    with pytest.raises(InvalidInput, match=r"row 8: .* not finite"):
        fit_quantiser(bad, recipe(kind))


def test_no_ads_and_too_wide_codes_are_refused(clusters: Floats) -> None:
    for kind in KINDS:
        with pytest.raises(InvalidInput, match="no ads"):
            fit_quantiser(clusters[:0], recipe(kind))
    for kind in ("residual_kmeans", "product"):
        with pytest.raises(ConfigError, match="width=21 exceeds"):
            fit_quantiser(clusters, recipe(kind, width=21))


def test_progress_counts_epochs(clusters: Floats) -> None:
    calls: list[tuple[str, int, int]] = []
    fit_quantiser(clusters, recipe("rqvae"), progress=lambda *call: calls.append(call))
    assert calls[0] == ("fit codebooks", 1, 20)
    assert calls[-1] == ("fit codebooks", 20, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_one_ad_is_enough_to_fit_on(clusters: Floats, kind: Kind) -> None:
    quantiser = fit_quantiser(clusters[:1], recipe(kind, codes=7))
    codes, quantised = quantiser.assign(clusters[:1])
    assert codes.tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(quantised, quantiser.hidden(clusters[:1]), atol=1e-5)


def test_embeddings_mapped_from_a_file_are_fitted_and_left_as_they_were(tmp_path: Path, clusters: Floats) -> None:
    np.save(tmp_path / "embeddings.npy", clusters)
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    for kind in KINDS:
        quantiser = fit_quantiser(mapped, recipe(kind))
        np.testing.assert_array_equal(quantiser.codebooks, fit_quantiser(clusters, recipe(kind)).codebooks)
    np.testing.assert_array_equal(mapped, clusters)
