"""A fitted quantiser, frozen: embeddings in, codes and quantised embeddings out. New ads get their S-IDs from it.

LEADRE §3.2, Eq. 2-4. All ways of fitting (the other modules of this room) end in the same thing: an
encoder, linear layers with ReLU between them, and M codebooks. So it is a few arrays and needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from leadre.errors import ArtifactIncomplete, InvalidInput

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
_CHUNK = 4_096
_CACHE = 1 << 18  # distances computed at a time: 1 MiB, which a core's own cache holds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantiser:
    """An encoder and its codebooks.

    Args:
        layers: (weight [out, in], bias [out]) of each linear layer, float32; ReLU stands between two.
        codebooks: float32[M, K, width].
    """

    layers: tuple[tuple[Floats, Floats], ...]
    codebooks: Floats

    @property
    def inputs(self) -> int:
        """Width of the embeddings it takes."""
        return int(self.layers[0][0].shape[1])

    def assign(self, embeddings: Floats) -> tuple[Codes, Floats]:
        """Return the codes (int32[N, M]) and the quantised embeddings z_a (float32[N, width]) of ads.

        Args:
            embeddings: x_a, float32[N, d].

        Raises:
            InvalidInput: another width, or a value that is not finite.
        """
        return quantise(self.hidden(embeddings), self.codebooks)

    def hidden(self, embeddings: Floats) -> Floats:
        """Return the encoder's outputs z^_a, float32[N, width]: what the codebooks quantise.

        Args:
            embeddings: x_a, float32[N, d].

        Raises:
            InvalidInput: another width, or a value that is not finite.
        """
        check_embeddings(embeddings)
        if embeddings.shape[1] != self.inputs:
            raise InvalidInput(
                f"embeddings are {embeddings.shape[1]} wide, the quantiser was fitted on {self.inputs}: "
                "encode with the encoder the index was built with"
            )
        outputs = np.empty((len(embeddings), self.codebooks.shape[2]), np.float32)
        for start in range(0, len(embeddings), _CHUNK):
            rows = embeddings[start : start + _CHUNK]
            for number, (weight, bias) in enumerate(self.layers):
                if number:
                    np.maximum(rows, 0, out=rows)
                rows = rows @ weight.T
                rows += bias
            outputs[start : start + _CHUNK] = rows
        return outputs

    def save(self, path: Path) -> None:
        """Write the quantiser as a safetensors file."""
        arrays = {"codebooks": self.codebooks}
        for number, (weight, bias) in enumerate(self.layers):
            arrays[f"layers.{number}.weight"], arrays[f"layers.{number}.bias"] = weight, bias
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> Quantiser:
        """Read what `save` wrote.

        Raises:
            ArtifactIncomplete: no such file, or a damaged one.
        """
        try:
            arrays = load_file(str(path))
            layers = tuple(
                (arrays[f"layers.{number}.weight"], arrays[f"layers.{number}.bias"])
                for number in range(len(arrays) // 2)
            )
            codebooks = arrays["codebooks"]
            if not layers or codebooks.ndim != 3 or layers[-1][0].shape[0] != codebooks.shape[2]:
                raise KeyError(f"layers {[weight.shape for weight, _ in layers]} for codebooks {codebooks.shape}")
        except (OSError, SafetensorError, KeyError) as error:
            raise ArtifactIncomplete(f"{path} holds no quantiser ({error}); build the index again") from None
        return cls(layers=layers, codebooks=codebooks)


def quantise(hidden: Floats, codebooks: Floats) -> tuple[Codes, Floats]:
    """Quantise level by level: the nearest code, then what it leaves over (Eq. 2-4).

    Args:
        hidden: encoder outputs, float32[N, width].
        codebooks: float32[M, K, width].

    Returns:
        Codes, int32[N, M], and the sums of their vectors, float32[N, width]. Of equal codes the first is taken.
    """
    ads, (levels, size, width) = len(hidden), codebooks.shape
    codes, quantised = np.empty((ads, levels), np.int32), np.empty((ads, width), np.float32)
    # |r - e|^2 without |r|^2, which is the same for every code, is one product: [r, 1] @ [-2 e, |e|^2]^T
    norms = np.square(codebooks).sum(axis=2, keepdims=True)
    factors = np.concatenate([-2 * codebooks, norms], axis=2).transpose(0, 2, 1)
    factors = np.ascontiguousarray(factors, np.float32)
    chunk = max(1, min(ads, _CACHE // size))
    residuals, distances = np.ones((chunk, width + 1), np.float32), np.empty((chunk, size), np.float32)
    for start in range(0, ads, chunk):
        part = hidden[start : start + chunk]
        residual, distance = residuals[: len(part)], distances[: len(part)]
        residual[:, :width] = part
        for level in range(levels):
            np.matmul(residual, factors[level], out=distance)
            nearest = distance.argmin(axis=1)
            codes[start : start + chunk, level] = nearest
            residual[:, :width] -= codebooks[level][nearest]
        np.subtract(part, residual[:, :width], out=quantised[start : start + chunk])
    for level, codebook in enumerate(codebooks):  # a matrix product may round equal columns differently
        if len(np.unique(norms[level])) < size:
            _, first, equals = np.unique(codebook, axis=0, return_index=True, return_inverse=True)
            codes[:, level] = first[equals.reshape(-1)][codes[:, level]]
    return codes, quantised


def check_embeddings(embeddings: Floats) -> None:
    """Refuse what is no matrix of finite numbers.

    Raises:
        InvalidInput: naming the first bad row.
    """
    if embeddings.ndim != 2:
        raise InvalidInput(f"embeddings are [N, d], these have shape {embeddings.shape}")
    for start in range(0, len(embeddings), _CHUNK):
        rows = embeddings[start : start + _CHUNK]
        with np.errstate(all="ignore"):  # a sum is finite only if every term is; it is much faster than a look at each
            if np.isfinite(rows.sum()):
                continue
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            row = start + int(finite.argmin()) + 1
            raise InvalidInput("the embedding has values that are not finite; encode the ad again", row=row)
