from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from leadre.errors import ArtifactIncomplete, InvalidInput
from leadre.indexing.quantisers import quantiser as module
from leadre.indexing.quantisers.quantiser import Floats, Quantiser, quantise


def tiny() -> Quantiser:
    random = np.random.default_rng(0)
    shapes = ((5, 7), (3, 5))
    layers = tuple(
        (random.normal(size=shape).astype(np.float32), random.normal(size=shape[0]).astype(np.float32))
        for shape in shapes
    )
    return Quantiser(layers=layers, codebooks=random.normal(size=(2, 4, 3)).astype(np.float32))


def test_each_level_takes_the_nearest_code_off_what_is_left() -> None:
    codebooks = np.array([[[0, 0], [10, 0]], [[1, 0], [0, 2]]], np.float32)
    codes, quantised = quantise(np.array([[9, 3], [1, 0]], np.float32), codebooks)
    # [9, 3] - [10, 0] = [-1, 3], nearer to [0, 2] (2) than to [1, 0] (13); [1, 0] - [0, 0] = [1, 0]
    assert codes.tolist() == [[1, 1], [0, 0]]
    assert quantised.tolist() == [[10, 2], [1, 0]]


def test_assign_is_the_layers_with_relu_and_then_the_codebooks() -> None:
    quantiser = tiny()
    embeddings = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32)
    (first, first_bias), (second, second_bias) = quantiser.layers
    hidden = np.maximum(embeddings @ first.T + first_bias, 0) @ second.T + second_bias
    codes, quantised = quantiser.assign(embeddings)
    for row in range(6):
        residual = hidden[row]
        for level in range(2):
            code = int(((residual - quantiser.codebooks[level]) ** 2).sum(axis=1).argmin())
            assert codes[row, level] == code
            residual = residual - quantiser.codebooks[level, code]
        np.testing.assert_allclose(quantised[row], hidden[row] - residual, atol=1e-5)


def test_a_saved_quantiser_assigns_the_same(tmp_path: Path, clusters: Floats) -> None:
    tiny().save(tmp_path / "q.safetensors")
    again = Quantiser.load(tmp_path / "q.safetensors")
    for mine, theirs in zip(tiny().assign(clusters[:, :7]), again.assign(clusters[:, :7]), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_damaged_file_is_an_incomplete_artifact(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    with pytest.raises(ArtifactIncomplete, match="build the index again"):
        Quantiser.load(path)
    tiny().save(path)
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 9):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactIncomplete, match="build the index again"):
            Quantiser.load(path)


def test_a_file_of_other_arrays_is_no_quantiser(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    for arrays in ({"weight": np.zeros(3)}, {"codebooks": np.zeros((2, 4, 3))}):
        save_file(arrays, str(path))
        with pytest.raises(ArtifactIncomplete, match="holds no quantiser"):
            Quantiser.load(path)


def test_of_equal_codes_the_first_is_taken() -> None:
    random = np.random.default_rng(0)
    codebooks = random.normal(size=(3, 256, 5)).astype(np.float32)
    codebooks[0, 128:] = codebooks[0, :128]
    codebooks[2, 7:] = codebooks[2, 7]
    codes, _ = quantise(random.normal(size=(3000, 5)).astype(np.float32), codebooks)
    assert codes[:, 0].max() < 128
    assert codes[:, 1].max() > 128
    assert codes[:, 2].max() == 7


def test_chunks_do_not_change_the_codes(monkeypatch: pytest.MonkeyPatch, clusters: Floats) -> None:
    expected = tiny().assign(clusters[:, :7])
    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(module, "_CACHE", 12)  # 3 ads at a time
    codes, quantised = tiny().assign(clusters[:, :7])
    np.testing.assert_array_equal(codes, expected[0])
    np.testing.assert_allclose(quantised, expected[1], atol=1e-6)
    bad = clusters[:, :7].copy()
    bad[30, 2] = -np.inf
    with pytest.raises(InvalidInput, match="row 31"):
        tiny().assign(bad)


def test_hidden_is_what_the_codebooks_quantise(clusters: Floats) -> None:
    hidden = tiny().hidden(clusters[:, :7])
    assert (hidden.shape, hidden.dtype) == ((500, 3), np.float32)
    np.testing.assert_array_equal(quantise(hidden, tiny().codebooks)[0], tiny().assign(clusters[:, :7])[0])


def test_no_ads_have_no_codes_and_one_ad_has_its_own(clusters: Floats) -> None:
    codes, quantised = tiny().assign(np.empty((0, 7), np.float32))
    assert (codes.shape, quantised.shape) == ((0, 2), (0, 3))
    np.testing.assert_array_equal(tiny().assign(clusters[:1, :7])[0], tiny().assign(clusters[:, :7])[0][:1])


def test_large_finite_values_are_not_mistaken_for_infinite_ones() -> None:
    quantiser = Quantiser(
        layers=((np.eye(2, dtype=np.float32), np.zeros(2, np.float32)),), codebooks=np.zeros((1, 1, 2), np.float32)
    )
    assert np.isfinite(quantiser.hidden(np.full((9, 2), 3e38, np.float32))).all()


def test_bad_embeddings_are_refused() -> None:
    embeddings = np.zeros((4, 7), np.float32)
    embeddings[2, 3] = np.nan
    with pytest.raises(InvalidInput, match=r"row 3: .* not finite"):
        tiny().assign(embeddings)
    with pytest.raises(InvalidInput, match="6 wide, the quantiser was fitted on 7"):
        tiny().assign(np.zeros((4, 6), np.float32))
    with pytest.raises(InvalidInput, match=r"\[N, d\], these have shape \(7,\)"):
        tiny().hidden(np.zeros(7, np.float32))
