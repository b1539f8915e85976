from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leadre.errors import ArtifactIncomplete, InvalidInput
from leadre.indexing.quantiser import Floats, Quantiser, quantise


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
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactIncomplete, match="build the index again"):
        Quantiser.load(path)


def test_bad_embeddings_are_refused() -> None:
    embeddings = np.zeros((4, 7), np.float32)
    embeddings[2, 3] = np.nan
    with pytest.raises(InvalidInput, match=r"row 3: .* not finite"):
        tiny().assign(embeddings)
    with pytest.raises(InvalidInput, match="6 wide, the quantiser was fitted on 7"):
        tiny().assign(np.zeros((4, 6), np.float32))
